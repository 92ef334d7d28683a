"""One way to make a finding: what the rule's page says of it, and what was seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from padcheck.diagnostics import Confidence, Finding, Fix, Place, Related, Severity
from padcheck.rulebook import find


def finding(
    rule_id: str,
    message: str,
    place: Place,
    remedy: str | None = None,
    *,
    severity: Severity | None = None,
    confidence: Confidence = "high",
    fix: Fix | None = None,
    related: Iterable[Related] = (),
    key: str = "",
    evidence: Mapping[str, Any] | None = None,
) -> Finding:
    """A finding of `rule_id`; `key` tells findings of one rule in one file apart (usually a key of the file)."""
    rule = find(rule_id)
    return Finding(
        rule.id,
        rule.name,
        severity or rule.severity,
        message,
        confidence,
        place,
        remedy=remedy,
        message_zh=rule.message_zh,
        related=tuple(related),
        fix=fix,
        evidence={"key": f"{rule_id}:{key}" if key else rule_id, **(evidence or {})},
    )
