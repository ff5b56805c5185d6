"""``memoleo doctor``."""

from __future__ import annotations

import click
import msgspec

from memoleo._health import Finding
from memoleo.cli._checks import examine
from memoleo.cli._common import cache_option, console, json_option, print_json

__all__ = ["command"]


@click.command(
    "doctor",
    short_help="Check everything, and say what to do.",
    epilog="Example: memoleo doctor --cache sqlite:///leo-cache.db",
)
@cache_option
@json_option
def command(url: str | None, as_json: bool) -> int:
    """Check settings, store and Ollama, and say what to do; the exit status is 1 on problems."""
    findings = list(examine(url))
    problems = sum(finding.status == "problem" for finding in findings)
    if as_json:
        print_json(
            {"problems": problems, "findings": [msgspec.to_builtins(each) for each in findings]}
        )
    else:
        _print(findings, problems)
    return 1 if problems else 0


def _print(findings: list[Finding], problems: int) -> None:
    from rich.text import Text

    styles = {"ok": "green", "warning": "yellow", "problem": "bold red"}
    out = console()
    for finding in findings:
        line = Text(f"{finding.status:<8}", style=styles[finding.status])
        line.append(f" {finding.check}: {finding.message}", style="default")
        out.print(line, soft_wrap=True)
        if finding.advice:
            out.print(Text(f"         → {finding.advice}"), soft_wrap=True)
    if problems:
        out.print(f"{problems} {'problem' if problems == 1 else 'problems'}.")
