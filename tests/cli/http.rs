//! `/metrics`, `/healthz`, `/readyz` and `/log-filter`.
