"""`hessian`: eigenvalues, trace and spectral density at a run's weights."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoloss.commands.console import Console
from isoloss.commands.errors import CommandError, UsageError, usage
from isoloss.commands.flags import command
from isoloss.commands.options import (
    Output,
    check_out,
    peak_memory,
    resolve_device,
    resolve_dtype,
    sample_count,
)
from isoloss.experiments.settings import SAMPLE_SEED, Selection, SpectrumSettings

if TYPE_CHECKING:
    from isoloss.commands.subject import Subject
    from isoloss.hessian import HessianOperator
    from isoloss.hessian.store import HessianData


@command(SpectrumSettings, Selection, Output)
def hessian(settings: SpectrumSettings, selection: Selection, output: Output) -> None:
    """Compute the top eigenvalues, the trace and the spectral density of the loss's Hessian.

    Each of the three is kept once it is finished: after an interruption the same command goes on
    with the rest. For example: hessian mnist-sam --top 10 --samples 2000
    """
    from isoloss.commands.subject import load_subject

    console = Console(output.as_json)
    check_options(settings)
    hessian_of(
        load_subject(selection, console),
        settings,
        console,
        out=output.out,
        force=output.force,
        figures=output.figures,
        estimate=output.estimate,
    )


def check_options(options: SpectrumSettings) -> None:
    """Refuse what can be seen to be wrong before anything is loaded."""
    from isoloss.landscape.batch_norm import check_policy

    with usage():
        check_policy(options.bn, options.bn_batch)
    if options.smallest and not options.top:
        raise UsageError("--smallest: expected --top of 1 or more with it, got 0")
    if options.top + options.trace_budget + options.probes == 0:
        raise UsageError("nothing to compute: --top, --trace-budget and --probes are all 0")


def hessian_of(
    subject: Subject,
    options: SpectrumSettings,
    console: Console,
    *,
    out: Path | None = None,
    force: bool = False,
    figures: bool = True,
    estimate: bool = False,
) -> Path:
    """Compute the curvature of a subject into its run's folder and return the file."""
    from isoloss.hessian import HessianOperator
    from isoloss.hessian.store import read_hessian
    from isoloss.landscape import Plan
    from isoloss.landscape.files import FileError
    from isoloss.landscape.store import refuse_other_function, refuse_other_settings
    from isoloss.landscape.vectors import digest

    path = out or subject.run.path / "hessian.h5"
    check_out(path)
    stored: HessianData | None = None
    if path.exists() and not force and not estimate:
        stored = read_hessian(path)
        if "plan" not in stored.settings:
            raise FileError(
                f"expected a file that this command made, got {path} without its settings\n"
                "write to another file (--out FILE), or start over (--force)"
            )
    problem = subject.problem(
        options.split,
        sample_count(options.samples, len(subject.split(options.split))),
        device=resolve_device(options.device),
        dtype=resolve_dtype(options.dtype),
        bn=options.bn,
        bn_batch=options.bn_batch,
        plan=None if stored is None else Plan.from_json(stored.settings["plan"]),
        balance=options.sample_balance,
        parameters=options.parameters,
    )
    if options.batch_size is not None:
        problem.plan = dataclasses.replace(problem.plan, product_batch=options.batch_size)
    size = sum(tensor.numel() for tensor in problem.parameters.values())
    if max(options.top, options.smallest) > size:
        raise UsageError(f"--top, --smallest: the network has {size} parameters, no more pairs")
    settings = {
        **subject.provenance,
        "label": subject.run.label,
        "optimizer": subject.run.config().get("optimizer"),
        "operator": "hessian",
        "split": options.split,
        "population": len(subject.split(options.split)),
        "sample_seed": SAMPLE_SEED,
        "samples": problem.count,
        "digest": problem.digest,
        "weights_sha256": digest(problem.parameters),
        "buffers_sha256": problem.buffers_digest,
        "loss_at_weights": problem.evaluate().loss,
        "bn": problem.bn,
        "bn_batch": problem.bn_batch if problem.bn != "eval" else None,
        "dtype": options.dtype,
        "device": problem.device.type,
        "parameters": size,
        "plan": problem.plan.to_json(),
        "options": {
            name: getattr(options, name)
            for name in ("top", "smallest", "tol", "max_products", "trace_error",
                         "trace_budget", "probes", "steps", "seed")
        },
    }  # fmt: skip
    if stored is not None:
        refuse_other_settings(path, stored.settings, settings)
        before = stored.settings.get("loss_at_weights", math.nan)
        refuse_other_function(path, "a loss of", [before], [settings["loss_at_weights"]])
        settings = stored.settings  # the file keeps saying how it was begun
    with HessianOperator(problem) as operator:
        if estimate:
            _estimate(operator, options, console)
            return path
        began = time.monotonic()
        try:
            data = _stages(operator, options, path, settings, stored, console)
        except KeyboardInterrupt:
            kept = f"what was finished is kept in {path}" if path.exists() else "nothing finished"
            raise CommandError(
                f"interrupted; {kept}\nthe same command goes on with the rest"
            ) from None
    if operator.products:
        console.say(f"{operator.products} products in {time.monotonic() - began:.1f} s")
    else:
        console.say(f"{path} is complete, nothing to do")
    _say(data, console)
    written: list[Path] = []
    if figures:
        from isoloss.commands.drawing import draw_hessian

        written = draw_hessian(path)
        names = [p.name for p in written if p.suffix == ".png"]
        console.say(f"wrote {', '.join([str(path), path.with_suffix('.json').name, *names])}")
    from isoloss.hessian.summary import summary

    console.result({"file": path, **summary(data), "figures": written})
    return path


def _stages(
    operator: HessianOperator,
    options: SpectrumSettings,
    path: Path,
    settings: dict[str, Any],
    stored: HessianData | None,
    console: Console,
) -> HessianData:
    """Compute the stages that are missing, keeping each as soon as it is finished."""
    from isoloss.hessian import spectral_density, top_eigenpairs, trace
    from isoloss.hessian.store import HessianData, write_hessian
    from isoloss.landscape import Plan

    data = stored or HessianData(settings)
    wanted = {
        "eigenpairs": options.top,
        "trace": options.trace_budget,
        "density": options.probes,
    }
    if any(number and stage not in data.stages for stage, number in wanted.items()):
        Plan.from_json(settings["plan"]).apply()
    elif not path.with_suffix(".json").exists():
        write_hessian(path, settings, data.eigenpairs, data.trace, data.density)

    def keep(**stage: Any) -> HessianData:
        known = {"eigenpairs": data.eigenpairs, "trace": data.trace, "density": data.density}
        return write_hessian(path, settings, **{**known, **stage}, shapes=operator.shapes)

    if options.top and data.eigenpairs is None:
        with console.progress("eigenvalues") as progress:
            pairs = top_eigenpairs(
                operator,
                options.top,
                smallest=options.smallest,
                tol=options.tol,
                max_products=max(options.max_products, options.top + options.smallest),
                seed=options.seed,
                progress=progress,
            )
        data = keep(eigenpairs=pairs)
    if options.trace_budget and data.trace is None:
        with console.progress("trace") as progress, usage("--trace-budget"):
            estimate = trace(
                operator,
                relative_error=options.trace_error,
                budget=options.trace_budget,
                seed=options.seed,
                progress=progress,
            )
        data = keep(trace=estimate)
    if options.probes and data.density is None:
        with console.progress("density") as progress:
            density = spectral_density(
                operator,
                probes=options.probes,
                steps=options.steps,
                seed=options.seed,
                progress=progress,
            )
        data = keep(density=density)
    return data


def _say(data: HessianData, console: Console) -> None:
    pairs, estimate = data.eigenpairs, data.trace
    if pairs is not None:
        values = ", ".join(f"{value:.6g}" for value in pairs.eigenvalues)
        console.say(f"largest eigenvalues: {values} (residuals up to {pairs.residuals.max():.2g})")
        if pairs.smallest_eigenvalues is not None:
            values = ", ".join(f"{value:.6g}" for value in pairs.smallest_eigenvalues)
            console.say(f"smallest eigenvalues: {values}")
        if not pairs.account["converged"]:
            console.say(f"eigenvalues not converged: {pairs.account['reason']}")
    if estimate is not None:
        console.say(f"trace: {estimate.estimate:.6g} ± {estimate.standard_error:.2g} (s.e.)")
        if not estimate.account["converged"]:
            console.say(f"trace not converged: {estimate.account['reason']}")


def _estimate(operator: HessianOperator, options: SpectrumSettings, console: Console) -> None:
    import torch

    vector = torch.ones(operator.size, dtype=operator.dtype, device=operator.device)
    operator.matvec(vector)  # the first product builds the graphs
    began = time.perf_counter()
    repeats = 3
    for _ in range(repeats):
        operator.matvec(vector)
    product = (time.perf_counter() - began) / repeats
    # Eigenvalues take 4 to 6 products each on trained networks; the trace may spend its budget.
    products = 6 * (options.top + options.smallest) + options.trace_budget
    products += options.probes * options.steps
    stored = options.top + options.smallest
    size = operator.dtype.itemsize * operator.size * stored
    console.say(
        f"about {product * products:.0f} s for up to {products} products of "
        f"{1000 * product:.0f} ms; peak memory {peak_memory() / 2**20:.0f} MiB; "
        f"file {size / 2**20:.1f} MiB"
    )
    console.result(
        {
            "seconds": product * products,
            "products": products,
            "peak_memory_bytes": peak_memory(),
            "file_bytes": size,
        }
    )
