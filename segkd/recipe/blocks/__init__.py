"""The typed blocks of a recipe. What is written here is what a recipe may say; nothing else is accepted."""

from segkd.recipe.blocks.block import Block, Optimizer, Schedule
from segkd.recipe.blocks.images import Data, Game, Synth, TeachData
from segkd.recipe.blocks.networks import OWN, Model, Student, Teacher
from segkd.recipe.blocks.recipes import DistillRecipe, Recipe, TeachRecipe, Train
from segkd.recipe.blocks.run import Run, TeachRun

__all__ = [
    "OWN",
    "Block",
    "Data",
    "DistillRecipe",
    "Game",
    "Model",
    "Optimizer",
    "Recipe",
    "Run",
    "Schedule",
    "Student",
    "Synth",
    "TeachData",
    "TeachRecipe",
    "TeachRun",
    "Teacher",
    "Train",
]
