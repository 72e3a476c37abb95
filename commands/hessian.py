"""`hessian`: eigenvalues, trace and spectral density at a run's weights."""

from __future__ import annotations

import math
from typing import Any

from isoloss.commands.console import Console
from isoloss.commands.flags import Given, command
from isoloss.commands.options import Output, check_out
from isoloss.experiments.options import OptionError, make
from isoloss.experiments.settings import (
    Along,
    OverTrainingSettings,
    Selection,
    SpectrumSettings,
)
from isoloss.records.over_training import OverTrainingData
from isoloss.records.spectra import ScaledData, SpectrumData


@command(Given(SpectrumSettings), Selection, Along, Output)
def hessian(given: dict[str, Any], selection: Selection, along: Along, output: Output) -> None:
    """Compute the top eigenvalues, the trace and the spectral density of the loss's Hessian.

    Each of the three is kept once it is finished: after an interruption the same command goes on
    with the rest. Other matrices take its place or stand beside it.
    For example: hessian mnist-sam --top 10 --samples 2000
    hessian mnist-sam --operator hessian,ggn,residual
    or, along a training that kept checkpoints: hessian mnist-sam --epochs all
    """
    if along.epochs is not None:
        over_training(given | {"epochs": along.epochs}, selection, output)
        return
    spectrum(make(SpectrumSettings, given), selection, output)


def spectrum(settings: SpectrumSettings, selection: Selection, output: Output) -> None:
    """Compute the spectrum at one checkpoint."""
    from isoloss.experiments.drawing import draw_hessian, png_files
    from isoloss.experiments.selection import select
    from isoloss.experiments.spectra import SpectrumExperiment, check_spectrum

    console = Console(output.as_json)
    check_spectrum(settings)
    check_out(output.out)
    subject = select(selection, console)
    experiment = SpectrumExperiment(
        subject, settings, output.out, fresh=output.force or output.estimate
    )
    if output.estimate:
        console.cost(experiment.cost())
        return
    result = experiment.run(console)
    if result.products:
        console.say(f"{result.products} products in {result.seconds:.1f} s")
    else:
        console.say(f"{result.path} is complete, nothing to do")
    for name, data in result.data.operators.items():
        if result.data.settings["operator"] != "hessian" or result.data.others:
            console.say(f"{name}:")
        _say(data, console)
    written = []
    if output.figures and result.path is not None:
        written = draw_hessian(result.path)
        names = [result.path.with_suffix(".json").name, *(p.name for p in png_files(written))]
        console.say(f"wrote {', '.join([str(result.path), *names])}")
    console.result({**result.summary(), "figures": written})


def over_training(given: dict[str, Any], selection: Selection, output: Output) -> None:
    """Compute the largest eigenvalues at the checkpoints of a training."""
    from isoloss.experiments.drawing import png_files
    from isoloss.experiments.over_training import OverTrainingExperiment
    from isoloss.experiments.plotting import draw_over_training
    from isoloss.experiments.selection import select

    console = Console(output.as_json)
    for name in ("smallest", "probes", "steps"):
        if name in given:
            raise OptionError(name, "is for one checkpoint alone, `epochs` was given as well")
    if selection.checkpoint is not None:
        raise OptionError("checkpoint", "expected `epochs` or one checkpoint, got both")
    settings = make(OverTrainingSettings, given)
    check_out(output.out)
    fresh = output.force or output.estimate
    experiment = OverTrainingExperiment(
        select(selection, console), settings, output.out, fresh=fresh
    )
    if output.estimate:
        console.cost(experiment.cost())
        return
    result = experiment.run(console)
    if result.products:
        console.say(f"{result.products} products in {result.seconds:.1f} s")
    else:
        console.say(f"{result.path} is complete, nothing to do")
    _say_over_training(result.data, console)
    written = draw_over_training([result.path]) if output.figures else []
    names = [result.path.with_suffix(".json").name, *(p.name for p in png_files(written))]
    console.say(f"wrote {', '.join([str(result.path), *names])}")
    console.result({**result.summary(), "figures": written})


def _say_over_training(data: OverTrainingData, console: Console) -> None:
    first, last, stability = data.rows[0], data.rows[-1], data.settings["stability"]
    for row in (first, last) if len(data.rows) > 1 else (first,):
        console.say(
            f"epoch {row.epoch}: lambda_max {row.eigenvalues[0]:.6g} (residual "
            f"{row.residuals[0]:.2g})"
            + (f", threshold {row.threshold:.6g}" if math.isfinite(row.threshold) else "")
            + f", loss {row.loss:.6g}"
        )
    reference = ", ".join(stability["for_reference"])
    console.say(
        f"threshold: {stability['rule']}" + (f" (for reference: {reference})" if reference else "")
    )
    if stability["shift"]:
        console.say(f"eigenvalues with the coupled weight decay: of H + {stability['shift']:g} I")
    if data.cold is not None:
        console.say(
            f"at epoch {last.epoch} {last.products} products begun from the eigenvectors before, "
            f"{data.cold.products} from a random vector (lambda_max {data.cold.eigenvalues[0]:.6g})"
        )
    if pending := [str(row.epoch) for row in data.rows if not row.converged]:
        console.say(f"eigenvalues not converged at epochs {', '.join(pending)}")


def _say(data: SpectrumData, console: Console) -> None:
    pairs, estimate = data.eigenpairs, data.trace
    if pairs is not None:
        values = ", ".join(f"{value:.6g}" for value in pairs.eigenvalues)
        console.say(f"largest eigenvalues: {values} (residuals up to {pairs.residuals.max():.2g})")
        errors = pairs.sample_standard_error
        of_samples = _of_samples(None if errors is None else errors[0], pairs.account)
        console.say(
            f"lambda_max: {pairs.eigenvalues[0]:.6g} (solver {pairs.residuals[0]:.2g}{of_samples})"
        )
        if pairs.smallest_eigenvalues is not None and pairs.smallest_residuals is not None:
            values = ", ".join(f"{value:.6g}" for value in pairs.smallest_eigenvalues)
            largest = pairs.smallest_residuals.max()
            console.say(f"smallest eigenvalues: {values} (residuals up to {largest:.2g})")
        if not pairs.account["converged"]:
            console.say(f"eigenvalues not converged: {pairs.account['reason']}")
    if estimate is not None:
        of_samples = _of_samples(estimate.sample_standard_error, estimate.account)
        console.say(
            f"trace: {estimate.estimate:.6g} ± {estimate.standard_error:.2g} (s.e. over probes"
            f"{of_samples})"
        )
        if not estimate.account["converged"]:
            console.say(f"trace not converged: {estimate.account['reason']}")
    if data.scaled is not None:
        console.say(f"in units of the filters: {_scaled(data.scaled)}")


def _of_samples(error: float | None, account: dict[str, Any]) -> str:
    """Say the error over draws of the samples, or why there is none."""
    if "sample" not in account:
        return ""  # a file from before it was computed
    if reason := account["sample"].get("reason"):
        return f", sample: none, {reason}"
    bias = account["sample"].get("bias")
    return f", sample {error:.2g}" + ("" if bias is None else f"; sampling bias about {bias:+.2g}")


def _scaled(scaled: ScaledData) -> str:
    parts = []
    if scaled.eigenvalue is not None:
        parts.append(f"largest eigenvalue {scaled.eigenvalue:.6g} (residual {scaled.residual:.2g})")
    if scaled.trace is not None:
        parts.append(f"trace {scaled.trace:.6g} ± {scaled.trace_standard_error:.2g} (s.e.)")
    not_converged = [
        f"{name} not converged: {scaled.account[name]['reason']}"
        for name in ("eigenvalue", "trace")
        if name in scaled.account and not scaled.account[name]["converged"]
    ]
    return "; ".join([", ".join(parts) or scaled.account["reason"], *not_converged])
