"""Tuners that the peft package lacks, which peft saves, loads and stacks like its own.

A tuner is a configuration, a model and a layer built on :mod:`peftselect.tuners.base`, in a module of this folder that
ends with ``register_tuner(Config, Model)``. Every module of the folder is imported as soon as peft is, so that plain
``PeftModel.from_pretrained`` loads such adapters in any process that has imported peftselect. A third party does the
same with a module of its own, which its plugin names by :func:`peftselect.register_tuners`.
"""

from peftselect.tuners.registry import register_tuner, register_tuners, tuner_type

__all__ = ["register_tuner", "register_tuners", "tuner_type"]
