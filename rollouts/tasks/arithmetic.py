"""Expressions of digits and how a person works them out: operation by operation, and inside one, digit by digit."""

from __future__ import annotations

from dataclasses import dataclass

COST = {"+": 1.0, "-": 1.25, "*": 2.0}  # of one step, for the difficulty label; the keys are all the operators
HARDEST = 6.0  # the cost at which the label reaches 1: three multiplications


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One operation of a solution; as text `4*3=12` or, with its working, `72-5=60+12-5=60+7=67`."""

    left: int
    operator: str
    right: int

    @property
    def result(self) -> int:
        """The value of the step."""
        if self.operator == "*":
            return self.left * self.right
        return self.left + self.right if self.operator == "+" else self.left - self.right

    def text(self) -> str:
        """The step as a chain of equal terms: the operation, its working if it needs any, the result."""
        return "=".join([self._operation(), *self.working(), str(self.result)])

    def claim(self, result: int) -> str:
        """The bare equation with `result`, right or wrong."""
        return f"{self._operation()}={result}"

    def working(self) -> list[str]:
        """Terms between operation and result, so that each takes facts of single digits only.

        A two-digit factor is split into tens and ones; a negative value is brought to minus a positive one; a sum of
        larger numbers is written as tens plus ones.
        """
        return self._product_working() if self.operator == "*" else self._sum_working()

    def check(self) -> str:
        """The step proven by another one: the inverse operation, or the factors swapped."""
        if self.operator == "*":
            return Step(left=self.right, operator="*", right=self.left).claim(self.result)
        inverse = "-" if self.operator == "+" else "+"
        return Step(left=self.result, operator=inverse, right=self.right).claim(self.left)

    def _operation(self) -> str:
        return f"{self.left}{self.operator}{self.right}"

    def _product_working(self) -> list[str]:
        tens, ones = self.left // 10 * 10, self.left % 10
        if tens == 0 or ones == 0 or self.right <= 1:
            return []
        split = f"{tens}*{self.right}+{ones}*{self.right}"
        return [split, f"{tens * self.right}+{ones * self.right}"]

    def _sum_working(self) -> list[str]:
        signed = self.right if self.operator == "+" else -self.right
        if (0 <= self.left < 10 and self.right < 10) or self.left == 0 or signed == 0:
            return []
        adds = (self.left < 0) == (signed < 0)
        first, second = abs(self.left), abs(signed)
        if not adds and second > first:
            first, second = second, first
        sign = -1 if adds else 1
        tens = first // 10 * 10 - sign * (second // 10 * 10)
        ones, other = first % 10, second % 10
        if not adds and ones < other:
            tens, ones = tens - 10, ones + 10  # borrowed
        operator = "+" if adds else "-"
        terms = [f"{first}{operator}{second}"]
        if tens:
            terms += [f"{tens}+{ones}{operator}{other}", f"{tens}+{ones + (other if adds else -other)}"]
        if self.result < 0:
            terms = [f"-({term})" for term in terms]
        distinct = dict.fromkeys(terms)  # 40+7 is its own working
        return [term for term in distinct if term != self._operation()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """Digits with operators between them. Example: `Expression(digits=(7, 4, 3), operators=("+", "*"))`."""

    digits: tuple[int, ...]
    operators: tuple[str, ...]

    def __str__(self) -> str:
        pairs = zip(self.operators, self.digits[1:], strict=True)
        return "".join([str(self.digits[0]), *(f"{operator}{digit}" for operator, digit in pairs)])

    def steps(self) -> list[Step]:
        """The operations in the order of precedence: products from the left, then sums from the left."""
        numbers, operators, steps = list(self.digits), list(self.operators), []
        for level in ("*", "+-"):
            at = 0
            while at < len(operators):
                if operators[at] not in level:
                    at += 1
                    continue
                step = Step(left=numbers[at], operator=operators.pop(at), right=numbers.pop(at + 1))
                numbers[at] = step.result
                steps.append(step)
        return steps

    @property
    def difficulty(self) -> float:
        """Label in [0, 1], from how many operators there are and of which kind."""
        return min(1.0, sum(COST[operator] for operator in self.operators) / HARDEST)
