"""Fine-tuning with MACE's own training code, and the proof of what it did.

`plan` says what is asked, `worker` runs it in a process of its own, `loop` is the epoch
loop, `loss` and `batches` make the replay weight work, `proof` reads back what ran.
"""
