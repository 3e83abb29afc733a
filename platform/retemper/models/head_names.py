"""What the heads of fine-tuned models are called."""

from __future__ import annotations

TARGET, REPLAY = "Default", "pt_head"  # MACE's names of the head of the target, and of the replayed one


def name_of(head: str) -> str:
    """What a further head of the foundation is called in the fine-tuned model, beside `TARGET` and `REPLAY`."""
    return f"foundation_{head}" if head in (TARGET, REPLAY) else head
