"""Which policy is in force: stores, signatures, rollout and admission."""
