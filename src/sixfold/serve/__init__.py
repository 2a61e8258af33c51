"""What others connect to: the agent's API and the cluster resolver."""
