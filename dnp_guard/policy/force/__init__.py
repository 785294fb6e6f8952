"""The policy in force: stores, signatures, rollout and admission."""
