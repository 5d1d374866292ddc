"""From samples to an update of the policy: batches, forward pass, reference model, critic, optimizer.

It runs without Ray, TRL and datasets. Start with `learner`, whose interface is in `protocol`;
`parallel` spreads its work over processes.
"""
