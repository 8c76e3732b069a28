"""The textbook's airfoil experiment in Paddle: the same seeds come to the textbook's losses."""

from airfoil_oracle import check_framework, concise_forms, needs_airfoil, scratch_forms


@needs_airfoil
def test_airfoil_comes_to_the_textbooks_losses():
    check_framework("paddle", scratch_forms() | concise_forms("paddle.optimizer", "onepass.paddle"))
