"""The check of a machine, of one with a GPU above all: does raydream compute there, how fast, and the same bits twice?

`raydream check` runs it. Each step is a plain function in a file of this folder (in `raydream/runtime/device_check.py`
where it needs Ray) and runs in a process of its own, `python -m raydream.device_check`, so that a step that crashes,
hangs or runs out of memory costs the others nothing. Networks have random weights. The steps without Ray need torch,
numpy and pydantic, and no other package. What runs them (`steps.py`, `runner.py`, `summary.py`, `command.py`) does not
load torch, so that a torch that cannot be loaded is a step's failure.
"""
