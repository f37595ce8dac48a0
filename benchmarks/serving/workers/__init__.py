"""One module a system; each is run by the Python of its own environment and imports nothing of manylens but ours does.

A module has

    prepare(master, folder, calibration, **options)   makes the system's own model, where it needs one
    load(master, folder, threads, **options)          returns a function from pairs to scores, (pairs, labels)
"""
