"""Formats numbers and times for people. Pure."""

import time


def count(value: float) -> str:
    """12, 1.2k, 34M. Below ten, with a fraction if there is one."""
    for power, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= power:
            return f"{value / power:.3g}{letter}"
    return f"{value:.3g}"


# U+202F is a narrow space without a line break, which SI puts before units. U+2013, a
# dash, stands for no value.


def whole(value: int) -> str:
    """Every digit, in groups of three with narrow spaces."""
    return f"{value:,}".replace(",", "\u202f")


def share(value: float | None) -> str:
    """A share in percent."""
    if value is None:
        return "–"
    percent = 100 * value
    return (
        f"{percent:.0f}\u202f%"
        if percent >= 10 or not percent
        else f"{percent:.2g}\u202f%"
    )


def duration(seconds: float | None) -> str:
    """12 ms, 1.3 s, 4 min."""
    if seconds is None:
        return "–"
    # 0.9995 s and more would be rounded to 1e+03 ms.
    if seconds < 0.9995:
        return f"{1000 * seconds:.3g}\u202fms"
    return f"{seconds:.3g}\u202fs" if seconds < 120 else f"{seconds / 60:.3g}\u202fmin"


def milliseconds(value: float) -> str:
    return duration(value / 1000) if value else "0"


def money(dollars: float | None) -> str:
    """US dollars: to the cent, and below one to a hundredth of it."""
    if dollars is None:
        return "–"
    if dollars == 0:
        return "$0"
    # Bounds are where rounding changes the text: below, "$0.0000" would look free.
    if dollars < 0.00005:
        return "<$0.0001"
    if dollars < 0.00995:
        return f"${dollars:.4f}"
    return f"${dollars:,.2f}" if dollars < 1e5 else f"${count(dollars)}"


def moment(seconds: float) -> str:
    """The day and the time, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


def clock(seconds: float) -> str:
    return time.strftime("%H:%M", time.gmtime(seconds))


def day_and_time(seconds: float) -> str:
    """The day without its year, and the time to the second."""
    return time.strftime("%b %d %H:%M:%S", time.gmtime(seconds))


def day(seconds: float) -> str:
    return time.strftime("%b %-d", time.gmtime(seconds))
