"""From notebooks to the published book: pairing, profiles, execution, gate, staging, and the environment.

Only this package knows papermill, jupytext, Snakemake and Jupyter Book. Nothing in it is imported by a notebook.
"""
