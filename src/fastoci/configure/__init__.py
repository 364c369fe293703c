"""What the configuration files of other programs should say: planned as edits, shown as a diff, then written.

Planning is pure over what was read. Spec: docs/containerd.md.
"""
