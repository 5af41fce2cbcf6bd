"""How far to read ahead.  Pure: a window in, a window out.

A read is sequential when its first missing page follows the page used last, or the end of what was read ahead last, or
is the first of the file.  The window then doubles up to a limit; any other read asks for what it wants and no more.
"""

FIRST_WINDOW = 4             # pages
LARGEST_WINDOW = 32          # pages: 128 KiB, Linux's default


def next_window(window: int, wanted: int, sequential: bool, limit: int = LARGEST_WINDOW) -> int:
    """Return how many pages to read in all when `wanted` are missing and `window` were read last time."""
    if not sequential:
        return wanted
    return max(wanted, min(limit, max(FIRST_WINDOW, 2 * window)))


def largest_window(pages: int) -> int:
    """Return the limit for a guest of `pages` pages: a small one must not read its own cache out of memory."""
    return max(1, min(LARGEST_WINDOW, pages // 16))
