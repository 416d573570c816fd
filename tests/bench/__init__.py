"""
The benchmarks: Perijove beside JupyterHub and configurable-http-proxy, under the same load.

Run ``make bench``; `docs/benchmarks.md` tells what is measured and how to read it.
"""
