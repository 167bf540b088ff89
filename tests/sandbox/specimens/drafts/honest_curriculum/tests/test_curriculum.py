import mechanisms.curriculum as module
from sandbox import testing


def test_lessons_follow_each_other():
    view = testing.make_view()
    title, names = module.Curriculum().lesson(view)
    assert title == "regularisation" or names
    long = [testing.make_trial(0, 1.0, status="kept")]
    long += [testing.make_trial(n, 1.0) for n in range(1, 3 * module.LENGTH)]
    assert module.Curriculum().lesson(testing.make_view(trace=long))[0] == "everything"


def test_the_prior_is_told(monkeypatch):
    prior = testing.scripted_prior([{"WEIGHT_DECAY": 0.3}])
    view = testing.make_view(prior=prior)
    monkeypatch.setattr(module, "LENGTH", 1)
    module.Curriculum().propose(view, 1)
    assert "change only" in prior.asked[0][0]
