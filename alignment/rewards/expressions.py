"""Arithmetic expressions, read by recursive descent into exact fractions. Model text never reaches `eval`.

    expression = term (("+" | "-") term)*
    term       = signed (("*" | "/" | "×" | "÷") signed)*
    signed     = ("+" | "-")* atom
    atom       = digits ["." digits] | "(" expression ")"

Blanks may stand between tokens. There is no power, so that a value is never longer than its text; length, depth and
digits are bounded as well, and reading takes a few milliseconds at worst, whatever the text.
"""

import dataclasses
import math
import re
from fractions import Fraction

MAX_LENGTH = 1000  # characters of an expression
MAX_DEPTH = 50  # parentheses within parentheses
MAX_DIGITS = 50  # of one number

_TOKEN = re.compile(r"[ \t\r\n]*(?:([0-9]+(?:\.[0-9]+)?)|([-+*/()×÷−]))")
_BLANK = " \t\r\n"
_SAME = {"×": "*", "÷": "/", "−": "-"}
_LITERAL = re.compile(r"([-+−]?)([0-9]+)(?:\.([0-9]+)|/([0-9]+))?")


class ExpressionError(ValueError):
    """The text is no expression of this grammar, is too long or too deep, or divides by zero."""


@dataclasses.dataclass(frozen=True)
class Expression:
    """The exact value, and the numbers as they stand in the text from left to right, without their signs."""

    value: Fraction
    numbers: tuple[Fraction, ...]


def parse(text: str, *, max_length: int = MAX_LENGTH, max_depth: int = MAX_DEPTH) -> Expression:
    """Reads the whole text as one expression.

    Raises:
      ExpressionError: with the position (from 1) and what stands there.
    """
    if len(text) > max_length:
        raise ExpressionError(f"expression of {len(text)} characters; allowed: {max_length}")
    reader = _Reader(text, max_depth)
    value = reader.expression(0)
    if reader.token is not None:
        raise reader.error("an operator or the end")
    return Expression(value, tuple(reader.numbers))


def evaluate(text: str, *, max_length: int = MAX_LENGTH, max_depth: int = MAX_DEPTH) -> Fraction:
    """The exact value of an expression; raises as `parse` does."""
    return parse(text, max_length=max_length, max_depth=max_depth).value


def literal(text: str) -> Fraction:
    """The value of a single number: an integer, a decimal, or a fraction in lowest terms, with an optional sign.

    Nothing that is left to compute is a number: "17+25" and "84/2" are refused, so that a prompt cannot be answered by
    repeating it.

    Raises:
      ExpressionError: it is anything else.
    """
    match = _LITERAL.fullmatch(text.strip(_BLANK)) if len(text) <= MAX_LENGTH else None
    if match is None or any(len(part) > MAX_DIGITS for part in match.group(2, 3, 4) if part):
        raise ExpressionError(f"{text[:40]!r} is not a number")
    sign, whole, decimals, denominator = match.groups()
    value = Fraction(f"{whole}.{decimals}") if decimals else Fraction(int(whole))
    if denominator is not None:
        if int(denominator) < 2 or math.gcd(int(whole), int(denominator)) != 1:
            raise ExpressionError(f"{text[:40]!r} is not a fraction in lowest terms")
        value /= int(denominator)
    return value if sign in ("", "+") else -value


class _Reader:
    """One pass over the text with one token of look-ahead."""

    def __init__(self, text: str, max_depth: int):
        self.text, self.max_depth = text, max_depth
        self.start = self.end = 0
        self.token: str | None = None
        self.numbers: list[Fraction] = []
        self.advance()

    def advance(self) -> None:
        match = _TOKEN.match(self.text, self.end)
        if match is None:
            rest = self.text[self.end :].lstrip(_BLANK)
            self.start = len(self.text) - len(rest)
            self.token = None
            if rest:
                raise self.error("a number, an operator or a parenthesis")
            return
        self.token = match[1] or _SAME.get(match[2], match[2])
        self.start, self.end = match.start(match.lastindex), match.end()

    def error(self, wanted: str) -> ExpressionError:
        found = repr(self.text[self.start : self.start + 10]) if self.start < len(self.text) else "the end"
        return ExpressionError(f"at character {self.start + 1}: {found} where {wanted} is wanted")

    def expression(self, depth: int) -> Fraction:
        value = self.term(depth)
        while self.token in ("+", "-"):
            operator = self.token
            self.advance()
            other = self.term(depth)
            value = value + other if operator == "+" else value - other
        return value

    def term(self, depth: int) -> Fraction:
        value = self.signed(depth)
        while self.token in ("*", "/"):
            operator, at = self.token, self.start
            self.advance()
            other = self.signed(depth)
            if operator == "*":
                value *= other
            elif other:
                value /= other
            else:
                raise ExpressionError(f"at character {at + 1}: division by zero")
        return value

    def signed(self, depth: int) -> Fraction:
        negative = False
        while self.token in ("+", "-"):  # a loop, so that a row of signs takes no stack
            negative ^= self.token == "-"
            self.advance()
        value = self.atom(depth)
        return -value if negative else value

    def atom(self, depth: int) -> Fraction:
        if self.token == "(":
            if depth == self.max_depth:
                raise ExpressionError(f"at character {self.start + 1}: more than {self.max_depth} nested parentheses")
            self.advance()
            value = self.expression(depth + 1)
            if self.token != ")":
                raise self.error("')'")
        elif self.token is not None and self.token[0].isdigit():
            if len(self.token.replace(".", "")) > MAX_DIGITS:
                raise ExpressionError(f"at character {self.start + 1}: a number of more than {MAX_DIGITS} digits")
            value = Fraction(self.token)
            self.numbers.append(value)
        else:
            raise self.error("a number or '('")
        self.advance()
        return value
