"""Active learning: explore with a model, find where it is unsure, label, and fine-tune again.

A round goes through `acquire` (explore, score, choose, label) into ``data/rounds/NNN``; `campaign` runs the
graph again and judges. Plugins are the files of ``explore``, ``uncertainty``, ``select`` and ``oracles``.
"""
