"""Public data sets as typed rows: where each lies, how it is fetched, how its rows are split.

Knows files, fields and splits. Knows nothing about plants or tasks; the tasks on real data (`steerlib.tasks.real`)
are built on it. Nothing here is shipped: each data set is read from a local folder, or from the folder that
`steerlib fetch` fills.
"""
