"""Trade-off functions: frozen values that map a false-alarm rate to a miss rate, with algebra."""

from finfluence.tradeoff._base import TradeOff
from finfluence.tradeoff._gaussian import Blatant, Gaussian, Perfect

__all__ = ["Blatant", "Gaussian", "Perfect", "TradeOff"]
