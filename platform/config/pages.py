"""The people's door: every page and every verb with its address.

All of them are closed to who is not logged in (`config.middleware.DenyByDefault`); log in is the
one exception. A page that is `watched` renews itself when what it shows has changed.
"""

from __future__ import annotations

from audit.views import audit, entry, export, verify
from dependencies import views as dependencies
from django.contrib.auth.views import LogoutView
from django.urls import path
from proposals import views, views_operators, views_policy, views_targets, views_verbs
from proposals.accounts import LogIn
from proposals.live import live, watched
from runs.views import run, run_trials, runs

urlpatterns = [
    path("", watched("inbox", views.inbox), name="inbox"),
    path("login/", LogIn.as_view(), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("live/", live, name="live"),
    path("proposals/", watched("proposals", views.proposals), name="proposals"),
    path("proposals/new/", views_verbs.upload, name="upload"),
    path("proposals/<int:pk>/", watched("proposal:{pk}", views.proposal), name="proposal"),
    path("proposals/<int:pk>/opened", views.opened, name="shown"),
    path("proposals/<int:pk>/approve", views_verbs.approve, name="approve"),
    path("proposals/<int:pk>/reject", views_verbs.reject, name="reject"),
    path("proposals/<int:pk>/withdraw", views_verbs.withdraw, name="withdraw"),
    path("proposals/<int:pk>/rescreen", views_verbs.rescreen, name="rescreen"),
    path("targets/", watched("targets", views_targets.targets), name="targets"),
    path("targets/<slug:name>/", watched("target:{name}", views_targets.target), name="target"),
    path("targets/<slug:name>/rollback", views_targets.rollback, name="rollback"),
    path("targets/<slug:name>/stop", views_targets.stop, name="stop"),
    path("targets/<slug:name>/release", views_targets.release, name="release"),
    path("autonomy/stop", views_targets.autonomy_stop, name="autonomy-stop"),
    path("autonomy/release", views_targets.autonomy_release, name="autonomy-release"),
    path("runs/", watched("runs", runs), name="runs"),
    path("runs/<int:pk>/", watched("run:{pk}", run), name="run"),
    path("runs/<int:pk>/trials.jsonl", run_trials, name="run-trials"),
    path("audit/", watched("audit", audit), name="audit"),
    path("audit/<int:seq>/", entry, name="entry"),
    path("audit/export", export, name="export"),
    path("audit/verify", verify, name="verify"),
    path("policy/", watched("policy", views_policy.policy), name="policy"),
    path("operators/", views_operators.operators, name="operators"),
    path("operators/new/<int:pk>/", views_operators.nominate, name="operator-new"),
    path("operators/<int:pk>/agree", views_operators.agree, name="operator-agree"),
    path("operators/<int:pk>/decline", views_operators.decline, name="operator-decline"),
    path("operators/<int:pk>/revoke", views_operators.revoke, name="operator-revoke"),
    path("packages/", watched("packages", dependencies.packages), name="dependencies"),
    path("packages/new/", dependencies.new, name="dependency-new"),
    path("packages/lock.json", dependencies.lock, name="dependency-lock"),
    path("packages/locks/<int:generation>/rollback", dependencies.rollback, name="lock-rollback"),
    path(
        "packages/<int:pk>/", watched("package:{pk}", dependencies.request_page), name="dependency"
    ),
    path("packages/<int:pk>/approve", dependencies.approve, name="dependency-approve"),
    path("packages/<int:pk>/reject", dependencies.reject, name="dependency-reject"),
    path("packages/<int:pk>/withdraw", dependencies.withdraw, name="dependency-withdraw"),
    path("packages/<int:pk>/build", dependencies.build, name="dependency-build"),
]
