"""``polycomp cache``."""

from __future__ import annotations

import click

from polycomp.driver.cache import cache_folder, caches_in
from polycomp.driver.words import bytes_text
from polycomp.errors import CacheError


@click.command()
@click.option("--clear", is_flag=True, help="Remove everything that is kept.")
@click.option("--info", is_flag=True, help="Show where the cache is and how much it holds (the default).")
def command(clear: bool, info: bool) -> None:
    """Show or clear the cache of compiled kernels."""
    folder = cache_folder()
    if folder is None:
        raise CacheError("this user has no cache: neither XDG_CACHE_HOME nor HOME names a folder")
    for cache in caches_in(folder):
        if clear:
            click.echo(f"{cache.folder}: {cache.clear()} entries removed")
        if info or not clear:
            held = cache.info()
            click.echo(f"{held.folder}: {held.entries} entries, {bytes_text(held.bytes)} of {bytes_text(held.limit)}")
