"""The agent: observe, plan, diff, apply. It decides nothing that a planner can decide.

``admission`` says what may enter the store; ``ledger`` keeps numbers and addresses; ``pods``
runs processes; ``world`` takes the snapshot; ``network`` turns it into the kernel's state;
``agent`` ties them into one loop; ``main`` starts and ends it.
"""
