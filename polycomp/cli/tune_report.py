"""``polycomp tune report``."""

from __future__ import annotations

import pathlib

import click

from polycomp.cli.common import check_page, section_table, stdout
from polycomp.driver.files import write_file
from polycomp.errors import TuningLogError
from polycomp.tuner.database import Database
from polycomp.tuner.report import report_page, report_sections


@click.command()
@click.argument("log", type=click.Path(path_type=pathlib.Path))
@click.option("--html", type=click.Path(path_type=pathlib.Path), help="Write a page instead, with curves.")
def command(log: pathlib.Path, html: pathlib.Path | None) -> None:
    """Show what the tuning log LOG tells: what was tried and found for each kernel, and which decisions mattered."""
    check_page(html)
    records = list(Database(log).records())
    if not records:
        raise TuningLogError(f"the tuning log {log} has no measurements; 'polycomp tune MODEL --db {log}' makes some")
    if html is not None:
        write_file(html, [report_page(log.name, records).encode()])
        click.echo(f"wrote {html}", err=True)
        return
    for section in report_sections(records):
        stdout().print(section_table(section))
