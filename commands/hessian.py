"""`hessian`: eigenvalues, trace and spectral density at a run's weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoloss.commands.console import Console
from isoloss.commands.flags import Given, command, refuse_several_processes
from isoloss.commands.options import Output, check_out
from isoloss.experiments.options import OptionError, make
from isoloss.experiments.settings import (
    Along,
    OverTrainingSettings,
    Selection,
    SpectrumSettings,
)
from isoloss.records.classes import ClassData, shares_of_eigenvalues, shares_of_trace
from isoloss.records.layers import layer_rows
from isoloss.records.over_training import OverTrainingData
from isoloss.records.spectra import ScaledData, SpectrumData
from isoloss.records.tables import aligned

if TYPE_CHECKING:
    from isoloss.experiments.over_training import OverTrainingResult
    from isoloss.experiments.spectra import SpectrumResult


@command(Given(SpectrumSettings), Selection, Along, Output, torchrun=True)
def hessian(given: dict[str, Any], selection: Selection, along: Along, output: Output) -> None:
    """Compute the top eigenvalues, the trace and the spectral density of the loss's Hessian.

    Each of the three is kept once it is finished: after an interruption the same command goes on
    with the rest. Other matrices take its place or stand beside it. Of a small network --exact
    finds all eigenvalues.
    For example: hessian mnist-sam --top 10 --samples 2000
    hessian mnist-sam --operator hessian,ggn,residual
    hessian mnist-sam --layers
    hessian mnist-sam --operator ggn --top 15 --classes
    or, along a training that kept checkpoints: hessian mnist-sam --epochs all

    Samples in several processes (mind the "--"): torchrun --nproc-per-node 2 -- cli.py hessian a
    """
    if along.epochs is not None:
        over_training(given | {"epochs": along.epochs}, selection, output)
        return
    spectrum(make(SpectrumSettings, given), selection, output)


def spectrum(settings: SpectrumSettings, selection: Selection, output: Output) -> None:
    """Compute the spectrum at one checkpoint."""
    from isoloss.experiments.drawing import draw_hessian
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
    _say_products(result, console)
    for name, data in result.data.operators.items():
        if result.data.settings["operator"] != "hessian" or result.data.others:
            console.say(f"{name}:")
        _say(data, console)
    written = []
    if output.figures and result.path is not None and console.speaks:
        written = draw_hessian(result.path)
    _finish(result, written, console)


def over_training(given: dict[str, Any], selection: Selection, output: Output) -> None:
    """Compute the largest eigenvalues at the checkpoints of a training."""
    from isoloss.experiments.over_training import OverTrainingExperiment
    from isoloss.experiments.plotting import draw_over_training
    from isoloss.experiments.selection import select

    refuse_several_processes()
    console = Console(output.as_json)
    for name in ("smallest", "probes", "steps", "layers", "classes", "exact", "basis"):
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
    _say_products(result, console)
    _say_over_training(result.data, console)
    written = draw_over_training([result.path]) if output.figures else []
    _finish(result, written, console)


def _say_products(result: SpectrumResult | OverTrainingResult, console: Console) -> None:
    if result.products:
        console.say(f"{result.products} products in {result.seconds:.1f} s")
    else:
        console.say(f"{result.path} is complete, nothing to do")


def _finish(
    result: SpectrumResult | OverTrainingResult, written: list[Path], console: Console
) -> None:
    """Say which files there are, and hand out the numbers."""
    from isoloss.experiments.drawing import png_files

    if result.path is not None:
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
    if data.exact is not None:
        console.say(data.exact.account["reason"])
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
        if (gradient := pairs.account.get("gradient")) and gradient["share"] is not None:
            console.say(
                f"gradient: norm {gradient['norm']:.3g}, {gradient['share']:.1%} of its square in "
                f"the span of the largest {len(pairs.eigenvalues)} ({gradient['by_chance']:.2g} by "
                "chance)"
            )
        if not pairs.account["converged"]:
            console.say(f"eigenvalues not converged: {pairs.account['reason']}")
    if estimate is not None:
        of_samples = _of_samples(estimate.sample_standard_error, estimate.account)
        error = f"± {estimate.standard_error:.2g} (s.e. over probes{of_samples})"
        if estimate.account.get("method") == "exact":
            error = f"(exact{of_samples})"
        console.say(f"trace: {estimate.estimate:.6g} {error}")
        if not estimate.account["converged"]:
            console.say(f"trace not converged: {estimate.account['reason']}")
    if data.scaled is not None:
        console.say(f"in units of the filters: {_scaled(data.scaled)}")
    for line in _derived(data):
        console.say(line)
    if data.classes is not None:
        for line in _of_classes(data, data.classes):
            console.say(line)
    if data.layers:
        console.say(aligned([_of_layer(row) for row in layer_rows(data.layers)]))
        for name, layer in data.layers.items():
            for number in layer.not_converged:
                console.say(f"{name}: {number} not converged: {layer.account[number]['reason']}")


def _of_classes(data: SpectrumData, classes: ClassData) -> Iterator[str]:
    """Say what means over classes make up of the trace and of each of the largest eigenvalues."""
    from isoloss.figures.formatting import with_error

    if data.trace is not None:
        of_trace = shares_of_trace(classes, data.trace.estimate, data.trace.standard_error)
        shares = (
            f"{part} {with_error(100 * value, 100 * error)} %"
            for part, (value, error) in of_trace.items()
        )
        yield f"of the trace, by classes: {', '.join(shares)} (s.e. over probes)"
    if data.eigenpairs is not None:
        values = data.eigenpairs.eigenvalues
        shares_of = shares_of_eigenvalues(classes, values)
        yield aligned(
            [
                {"eigenvalue": f"{value:.6g}"}
                | {part: f"{shares[row]:.1%}" for part, shares in shares_of.items()}
                for row, value in enumerate(values)
            ]
        )


def _of_layer(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the numbers of a layer as cells of a table."""
    from isoloss.figures.formatting import with_error

    return {
        "layer": row["layer"],
        "parameters": f"{row['parameters']:,}",
        "lambda_max (solver)": f"{row['eigenvalue']:.6g} ({row['residual']:.1g})",
        "trace ± s.e.": f"{row['trace']:.6g} ± {row['trace_standard_error']:.2g}",
        "of the whole": f"{with_error(100 * row['share'], 100 * row['share_standard_error'])} %",
        "Frobenius norm ± s.e.": (
            f"{row['frobenius_norm']:.6g} ± {row['frobenius_standard_error']:.2g}"
        ),
    }


def _derived(data: SpectrumData) -> Iterator[str]:
    """Say what follows from the stored numbers, a line each."""
    from isoloss.records.summary import derived_figures

    found = derived_figures(data)
    for name, text in (("frobenius_norm", "Frobenius norm"), ("stable_rank", "stable rank")):
        if name in found:
            yield f"{text}: {_over_probes(found[name])}"
    if dimension := found.get("effective_dimension"):
        yield (
            f"effective dimension at c = 1/N = {dimension['c']:.2g}: bounds by quadrature "
            f"{_over_probes(dimension['lower'])} and {_over_probes(dimension['upper'])}"
        )
    if ratio := found.get("negative_ratio"):
        yield f"|lambda_min| / lambda_max: {ratio['value']:.3g} (solver {ratio['residual']:.1g})"
    if bulk := found.get("bulk"):
        error = bulk["standard_error"]
        of_probes = "" if error is None else f" ± {error:.2g} (s.e. over probes)"
        beyond = "" if error is None else f"; {bulk['outliers']} outliers resolved beyond it"
        yield f"edge of the bulk, {bulk['level']:.0%} below: {bulk['edge']:.3g}{of_probes}{beyond}"


def _over_probes(estimate: Mapping[str, Any]) -> str:
    error = estimate["standard_error"]
    return f"{estimate['value']:.6g}" + ("" if error is None else f" ± {error:.2g} (s.e.)")


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
        exact = scaled.account["trace"].get("method") == "exact"
        error = "(exact)" if exact else f"± {scaled.trace_standard_error:.2g} (s.e.)"
        parts.append(f"trace {scaled.trace:.6g} {error}")
    not_converged = [
        f"{name} not converged: {scaled.account[name]['reason']}"
        for name in ("eigenvalue", "trace")
        if name in scaled.account and not scaled.account[name]["converged"]
    ]
    return "; ".join([", ".join(parts) or scaled.account["reason"], *not_converged])
