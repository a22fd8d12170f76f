"""What a reader sees of rows and answers: texts, the tokens that carry a row's slope, near-duplicates, answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from finfluence.jobs.tune._decide import Decided
from finfluence.jobs.tune._prepared import Prepared
from finfluence.language import asked, token_losses
from finfluence.runs import Tape, gradients, initial_model, seeded

SHOWN, TOKENS, SHINGLE, ALIKE = 20, 6, 3, 0.5
NEW_TOKENS = 48
_STEP = 1e-3


def top_rows(decided: Decided, names: Sequence[str]) -> dict[str, list[Any]]:
    """Return the ids of the rows at the top of each behaviour's ranking."""
    lines = decided.lines
    return {
        name: lines[lines["query"] == name].sort_values("rank", kind="stable")["row_id"].head(SHOWN).tolist()
        for name in names
    }


def row_text(text: Any) -> str:
    """Return a row as one text: prompt and response, or the turns of a conversation."""
    if isinstance(text, tuple):
        return f"{text[0]}\n→ {text[1]}"
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in text)


def slope_tokens(
    prepared: Prepared, tape: Tape, positions: Sequence[int], column: int
) -> list[list[list[Any]]]:
    """Return, for each row, the tokens that carry its slope: [token, share], the strongest first.

    At the end of training the parameters are moved a little along the direction, scaled as Adam scales it, in which the
    behaviour grows; a token's share is what its own loss falls by, of what the whole response's falls by in absolute
    terms.

    Returns
    -------
    list
    """
    model, layout = tape.model().eval(), tape.layout
    parameters = list(layout.parameters(model))
    with seeded(0):
        _, found = gradients([prepared.queries[column]], model, tape, list(parameters))
    size, slots = layout.size, list(tape.optimizer.slots)
    place = 1 + slots.index("exp_avg_sq")
    direction = found[0] / (tape.final_state()[place * size : (place + 1) * size].sqrt() + 1e-8)
    theta = layout.theta(model)
    step = _STEP * theta.norm() / direction.norm().clamp_min(1e-30)
    moved = initial_model(prepared.recipe, 0).eval()
    shown = []
    for position in positions:
        batch = tape.batch(torch.tensor([position]))
        losses = []
        with torch.no_grad():
            for sign in (1, -1):
                layout.assign(moved, theta + sign * step * direction)
                losses.append(token_losses(moved, batch)[0].double())
        fall = (losses[1] - losses[0])[: int(batch["counts"][0])].cpu().numpy()
        total = float(np.abs(fall).sum()) or 1.0
        row = prepared.rows.encoded[position]
        learned = row.tokens[1:][row.learned[1:]]
        strongest = np.argsort(-np.abs(fall), kind="stable")[:TOKENS]
        shown.append(
            [
                [prepared.tokenizer.decode([int(learned[k])]), round(float(fall[k]) / total, 4)]
                for k in strongest
            ]
        )
    return shown


def near_duplicates(prepared: Prepared, positions: Sequence[int]) -> list[list[Any]]:
    """Return, for each row, the ids of rows that share half of its runs of three tokens or more (Jaccard ≥ 0.5)."""
    sets = [_shingles(e.tokens[e.learned]) for e in prepared.rows.encoded]
    where: dict[int, list[int]] = {}
    for row, shingles in enumerate(sets):
        for one in shingles:
            where.setdefault(one, []).append(row)
    ids = prepared.rows.ids.tolist()
    found = []
    for position in positions:
        shared: dict[int, int] = {}
        for one in sets[position]:
            for row in where[one]:
                shared[row] = shared.get(row, 0) + 1
        alike = [
            row
            for row, count in shared.items()
            if row != position and count >= ALIKE * (len(sets[row]) + len(sets[position]) - count)
        ]
        found.append([ids[row] for row in sorted(alike, key=lambda row: (-shared[row], row))])
    return found


def answers(prepared: Prepared, count: int) -> list[list[str]]:
    """Return [behaviour, prompt, answer] of the model as it is now, the likeliest token at each place.

    Returns
    -------
    list of list of str
    """
    tokenizer, model = prepared.tokenizer, prepared.model
    shown = []
    for behaviour in prepared.texts.behaviours:
        for prompt in behaviour.prompts[:count]:
            before, end = asked(prompt, tokenizer)
            given = torch.tensor([before], device=model.device)
            ends = _all_of(end, tokenizer.eos_token_id, model.generation_config.eos_token_id)
            with torch.no_grad():
                out = model.generate(
                    input_ids=given, attention_mask=torch.ones_like(given), do_sample=False, num_beams=1,
                    repetition_penalty=1.0, no_repeat_ngram_size=0, max_new_tokens=NEW_TOKENS,
                    eos_token_id=ends or None, pad_token_id=ends[0] if ends else 0,
                )  # fmt: skip
            answer = tokenizer.decode(out[0, given.shape[1] :], skip_special_tokens=True)
            shown.append([behaviour.name, prompt, answer.strip()])
    return shown


def _all_of(*tokens: Any) -> list[int]:
    """Return what ends an answer, from single tokens and lists of them: each once."""
    flat = (t for one in tokens for t in (one if isinstance(one, list) else [one]))
    return sorted({int(t) for t in flat if t is not None})


def _shingles(tokens: np.ndarray) -> set[int]:
    if len(tokens) < SHINGLE:
        return {hash(tuple(tokens.tolist()))}
    return {hash(tuple(tokens[k : k + SHINGLE].tolist())) for k in range(len(tokens) - SHINGLE + 1)}
