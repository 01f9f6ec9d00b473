"""Dates in words, each with the same date in numbers: a small language that code writes, in English and in Spanish."""

import datetime
import random

ENGLISH_MONTHS = "January February March April May June July August September October November December"
SPANISH_MONTHS = "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre"
ENGLISH_FORMS = ("{d} {m} {y}", "{m} {d}, {y}", "{d} {m:.3} {y}", "{m:.3} {d}, {y}", "{d}/{n}/{y}")


def dates(language: str, count: int, seed: int) -> str:
    """Lines such as "Mar 5, 1910 = 1910-03-05", or "5 de marzo de 1910 = 05/03/1910" in Spanish, from 1900 to 2099."""
    generator, lines = random.Random(seed), []
    months = (ENGLISH_MONTHS if language == "english" else SPANISH_MONTHS).split()
    for _ in range(count):
        day = datetime.date(1900, 1, 1) + datetime.timedelta(generator.randrange(73_000))
        month = months[day.month - 1]
        if language == "english":
            words = generator.choice(ENGLISH_FORMS).format(d=day.day, m=month, n=day.month, y=day.year)
            lines.append(f"{words} = {day.isoformat()}\n")
        else:
            lines.append(f"{day.day} de {month} de {day.year} = {day:%d/%m/%Y}\n")
    return "".join(lines)
