"""MetaWorld on MuJoCo: the simulated arm, collecting, training and closed-loop evaluation."""
