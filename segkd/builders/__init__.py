"""Recipe to objects: the only room that knows every other name, and decides nothing of its own."""

from segkd.builders.distiller import distiller_of, method_of
from segkd.builders.networks import described, network_of, start_from
from segkd.builders.source import generator_network_of, generator_of
from segkd.builders.teacher import check_classes, recorded_of, teacher_around, teacher_of, trained_network
from segkd.builders.teaching import teaching_of

__all__ = [
    "check_classes",
    "described",
    "distiller_of",
    "generator_network_of",
    "generator_of",
    "method_of",
    "network_of",
    "recorded_of",
    "start_from",
    "teacher_around",
    "teacher_of",
    "teaching_of",
    "trained_network",
]
