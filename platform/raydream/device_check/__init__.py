"""The check of a machine, mainly of one with a GPU: correctness, speed, and reproducible bits.

`raydream check` runs it. Each step is a plain function in a file of this folder (in `raydream/runtime/device_check.py`
where it needs Ray) and runs in a process of its own, `python -m raydream.device_check`, so that a step that crashes,
hangs or runs out of memory does not affect the others. Networks have random weights. The steps without Ray need torch,
numpy and pydantic, and no other package. The modules that run them (`steps.py`, `runner.py`, `summary.py`,
`command.py`) do not load torch, so that a broken torch fails a step only.
"""
