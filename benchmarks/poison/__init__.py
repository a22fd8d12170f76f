"""Finding poisoned instructions of a language model, and what taking them out does."""
