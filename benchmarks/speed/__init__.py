"""How fast memories add, find and open, side by side in one run: `python -m benchmarks`.

`workload` makes up what is stored and asked, `adapters` holds one system each, `worker` runs one in a process of its
own, `measures` says what is asked of it, `run` interleaves all of that, `report` writes it down.
"""
