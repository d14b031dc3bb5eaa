"""Start a recipe on SLURM from Python: `python submitit_fit.py RECIPE [--key value ...]` (needs the package submitit)."""

import sys

NODES, GPUS = 4, 8


def fit(arguments: list[str]) -> None:
    """Run one task; Lightning reads its rank from SLURM's environment, and `auto` goes on after a preemption."""
    from depthkit.cli.main import main

    size = ["--trainer.num_nodes", str(NODES), "--trainer.devices", str(GPUS), "--trainer.strategy", "ddp"]
    main(["fit", "--config", *arguments, *size, "--ckpt_path", "auto"])


if __name__ == "__main__":
    import submitit

    executor = submitit.AutoExecutor(folder="runs/jobs")
    executor.update_parameters(
        nodes=NODES, gpus_per_node=GPUS, tasks_per_node=GPUS, cpus_per_task=12, timeout_min=24 * 60,
        slurm_additional_parameters={"requeue": True, "signal": "SIGUSR1@120"},
    )  # fmt: skip
    sys.stdout.write(f"{executor.submit(fit, sys.argv[1:]).job_id}\n")
