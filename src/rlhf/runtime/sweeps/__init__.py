"""A sweep: one stage under several settings, a job each, that survives what happens to it on the way.

    sweeps/STAGE/TIME/sweep.json     what was asked for: the jobs, the settings they share, the inputs, the run in MLflow
    sweeps/STAGE/TIME/N/job.json     what became of job N: running, done or failed, and why
    sweeps/STAGE/TIME/N/…            what the stage leaves
    sweeps/STAGE/TIME/sweep.csv      a row a job

Hydra expands the settings and launches the jobs, one after another, side by side (joblib) or on a cluster (submitit).
What is here works under all of them, since jobs know each other by these files alone.
"""
