"""
The audit of a ledger: everything that can be checked afterwards, without the network.

Read in this order: report (the steps), contents (the file), chain (seals and who left), opening
(envelopes in proofs), then one file per kind of proof: alone, column, hearing (with questions), majority.
"""

from btard.swarm.audit.report import AuditResult, audit_ledger

__all__ = ["AuditResult", "audit_ledger"]
