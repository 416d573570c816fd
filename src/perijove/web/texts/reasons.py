"""The sentences of the catalogue of reasons, `domain/reasons.py`: what each means, what to do."""

from collections.abc import Mapping, Sequence
from typing import Final

from perijove.domain.launch import Clock
from perijove.web.texts.sentence import N_, Sentence

WAITING: Final[Mapping[str, Sentence]] = {
    "priority": Sentence(
        N_("Other jobs are ahead of yours."),
        N_(
            "A shorter time or fewer cores usually start sooner. You can close this page: "
            "your place stays yours."
        ),
    ),
    "resources": Sentence(
        N_("You are next, but nothing large enough is free yet."),
        N_("It starts as soon as there is room. A smaller request may fit into what is free now."),
    ),
    "no-slots": Sentence(
        N_("No queue has enough free slots for it yet."),
        N_("It starts as soon as there is room. Fewer cores or less memory may fit sooner."),
    ),
    "licenses": Sentence(
        N_("It needs a software licence, and all of them are in use."),
        N_("It starts as soon as one is given back."),
    ),
    "just-submitted": Sentence(
        N_("It was just handed over; the scheduler has not looked at it yet."),
        N_("Wait a minute: then we know more."),
    ),
    "begin-time": Sentence(
        N_("It is not to start before a certain time."),
        N_("It starts by itself after that time."),
    ),
    "dependency": Sentence(
        N_("It waits for another job to finish first."),
        N_("It starts by itself afterwards. Cancel it if that job will never finish."),
    ),
    "max-jobs-user": Sentence(
        N_("You already run as many jobs as you may have at once."),
        N_("It starts when one of them ends. Stop one that you no longer need."),
    ),
    "max-jobs-account": Sentence(
        N_("Your account already runs as many jobs as it may have at once."),
        N_("It starts when one of them ends. Choose another account if you have one."),
    ),
    "max-submit": Sentence(
        N_("You have as many jobs in the queue as you may have."),
        N_("Cancel jobs that you no longer need, or wait until some have ended."),
    ),
    "max-cpus": Sentence(
        N_("You or your group use all the cores you may have at once."),
        N_(
            "It starts when other jobs of yours end. Ask for fewer cores, stop a job, or "
            "try another account."
        ),
    ),
    "max-gpus": Sentence(
        N_("You or your group use all the GPUs you may have at once."),
        N_("It starts when other jobs of yours end. Stop one, or try without a GPU."),
    ),
    "max-memory": Sentence(
        N_("You or your group use all the memory you may have at once."),
        N_("It starts when other jobs of yours end. Ask for less memory, or stop a job."),
    ),
    "quota": Sentence(
        N_("You or your group use all that a quota of this cluster allows at once."),
        N_(
            "It starts when other jobs of yours end. Stop one that you no longer need, or "
            "ask for less."
        ),
    ),
    "node-starting": Sentence(
        N_("The machine for it is being started."),
        N_("This can take some minutes; nothing has to be done."),
    ),
    "no-budget": Sentence(
        N_("The account has no computing time left."),
        N_("Choose another account, or ask whoever manages it for more."),
    ),
    "over-time-limit": Sentence(
        N_("You asked for more time than is allowed here, so it would never start."),
        N_("Ask for a shorter time, or choose another partition."),
    ),
    "over-size-limit": Sentence(
        N_("You asked for more than one job may have here, so it would never start."),
        N_("Ask for fewer cores, less memory or fewer GPUs."),
    ),
    "node-unavailable": Sentence(
        N_("The machines it needs are down, reserved or being repaired."),
        N_("It starts when they are back. A shorter time may fit before the next maintenance."),
    ),
    "maintenance": Sentence(
        N_("It would not be over before the next maintenance, so it waits until afterwards."),
        N_("Ask for a time short enough to end before the maintenance begins."),
    ),
    "reservation": Sentence(
        N_("It waits for its reservation to begin."),
        N_("It starts with the reservation. Without one it may start sooner."),
    ),
    "reservation-gone": Sentence(
        N_("The reservation it was meant for does not exist any more."),
        N_("Start without it, or choose another reservation."),
    ),
    "held-by-user": Sentence(
        N_("You have put it on hold with the tools of the computing system."),
        N_("It joins the queue once you release it. You can cancel it as well."),
    ),
    "held-by-admin": Sentence(
        N_("An administrator of the computing system has put it on hold."),
        N_("Ask your administrator to release it, or cancel it."),
    ),
    "held-by-system": Sentence(
        N_("The computing system has put it on hold because something is not right with it."),
        N_("Ask your administrator to release it, or cancel it and choose other options."),
    ),
    "bad-constraints": Sentence(
        N_("No machine here has all that you asked for together, so it would never start."),
        N_("Ask for less per machine, or leave out a feature."),
    ),
    "account-not-allowed": Sentence(
        N_("This account may not be used with this partition."),
        N_("Choose another account or another partition."),
    ),
    "invalid-account": Sentence(
        N_("There is no such account, or it is not yours to use."),
        N_("Choose another account. Your administrator knows which ones you have."),
    ),
    "invalid-qos": Sentence(
        N_("This quality of service may not be used with your account or partition."),
        N_("Choose another one, or leave it to the site."),
    ),
    "invalid-partition": Sentence(
        N_("There is no such partition, or it is not yours to use."),
        N_("Choose another partition."),
    ),
    "partition-down": Sentence(
        N_("The partition is closed at the moment."),
        N_("It starts when the partition is opened again. Another partition may be faster."),
    ),
    "queue-disabled": Sentence(
        N_("The queue is closed at the moment."),
        N_("It starts when the queue is opened again. Another queue may be faster."),
    ),
    "launch-failed-held": Sentence(
        N_("A machine could not start it, so the scheduler put it on hold."),
        N_(
            "This was not your doing. Cancel it and start it again; if it happens twice, "
            "tell your administrator."
        ),
    ),
    "node-down": Sentence(
        N_("The machine it was given has failed; it is back in the queue."),
        N_("This was not your doing. It starts by itself on another machine."),
    ),
    "job-error": Sentence(
        N_("A machine tried to start it and reported an error; the scheduler stopped trying."),
        N_(
            "Cancel it and start it again. If it happens twice, tell your administrator "
            "what is quoted below."
        ),
    ),
    "other": Sentence(
        N_("It is in the queue. The scheduler's reason is quoted below."),
        N_("You can close this page: your place in the queue stays yours."),
    ),
    "pulling-image": Sentence(
        N_("The machine is fetching the image with your software."),
        N_("A large image takes some minutes the first time; nothing has to be done."),
    ),
    "image-pull-failing": Sentence(
        N_("The image with your software could not be fetched yet; it is tried again."),
        N_("If it lasts, choose another image, or tell your administrator what is quoted below."),
    ),
    "container-creating": Sentence(
        N_("Your container is being set up on its machine."),
        N_("This usually takes a few seconds."),
    ),
    "init-running": Sentence(
        N_("The preparations for your server are running."),
        N_("This can take some minutes; nothing has to be done."),
    ),
    "no-cpu": Sentence(
        N_("No machine has enough free cores for it yet."),
        N_("It starts as soon as there is room. Fewer cores may fit sooner."),
    ),
    "no-memory": Sentence(
        N_("No machine has enough free memory for it yet."),
        N_("It starts as soon as there is room. Less memory may fit sooner."),
    ),
    "no-gpu": Sentence(
        N_("No machine has enough free GPUs for it yet."),
        N_("It starts as soon as there is room. Without a GPU it may start sooner."),
    ),
    "no-node": Sentence(
        N_("No machine of this site suits it at the moment."),
        N_(
            "It starts by itself when one does. If it lasts, tell your administrator what is "
            "quoted below, or choose other options."
        ),
    ),
    "over-cpu": Sentence(
        N_("You asked for more cores than any machine here has, so it would never start."),
        N_("Ask for fewer cores."),
    ),
    "over-memory": Sentence(
        N_("You asked for more memory than any machine here has, so it would never start."),
        N_("Ask for less memory."),
    ),
    "over-gpu": Sentence(
        N_("You asked for more GPUs than any machine here has, so it would never start."),
        N_("Ask for fewer GPUs, or for another type."),
    ),
    "over-resource": Sentence(
        N_("Your server needs more of something than any machine here has: it would never start."),
        N_("Tell your administrator what is quoted below, or choose other options."),
    ),
    "node-pool-growing": Sentence(
        N_("All machines are full; another one is being added."),
        N_("This can take some minutes; nothing has to be done."),
    ),
    "namespace-quota": Sentence(
        N_("All that this site may use of the cluster at once is in use."),
        N_("It starts when other servers end. Stop one that you no longer need, or ask for less."),
    ),
    "over-cpu-quota": Sentence(
        N_(
            "You asked for more cores than all servers here may have together, so it would never"
            " start."
        ),
        N_("Ask for fewer cores."),
    ),
    "over-memory-quota": Sentence(
        N_(
            "You asked for more memory than all servers here may have together, so it would never"
            " start."
        ),
        N_("Ask for less memory."),
    ),
    "over-gpu-quota": Sentence(
        N_(
            "You asked for more GPUs than all servers here may have together, so it would never"
            " start."
        ),
        N_("Ask for fewer GPUs, or for another type."),
    ),
    "over-quota": Sentence(
        N_("You asked for more than all servers here may have together, so it would never start."),
        N_("Ask for less, or tell your administrator what is quoted below."),
    ),
    "volume-pending": Sentence(
        N_("Your storage is being made ready."),
        N_("This can take some minutes; nothing has to be done."),
    ),
    "volume-attaching": Sentence(
        N_("Your storage is being connected to the machine."),
        N_("This can take some minutes; nothing has to be done."),
    ),
    "volume-held": Sentence(
        N_("Your storage is still connected to another machine and has to come free first."),
        N_(
            "This usually takes some minutes. If it lasts, tell your administrator what is "
            "quoted below."
        ),
    ),
    "volume-held-by-another": Sentence(
        N_("Your storage is still in use by another server and has to come free first."),
        N_(
            "This usually takes some minutes. If it lasts, tell your administrator what is "
            "quoted below."
        ),
    ),
    "in-line": Sentence(
        N_("Many servers are starting right now. Yours is number %(place)s of %(of)s in line."),
        N_("It starts by itself when it is your turn; you can close this page."),
    ),
    "after": Sentence(
        N_("It starts as soon as the one before it has stopped completely."),
        N_("This usually takes a few seconds."),
    ),
    "spawner-silent": Sentence(
        N_("The computing system does not answer at the moment."),
        N_("Your request is safe and goes on by itself once it answers again."),
    ),
    "spawner-failed": Sentence(
        N_("The computing system reported an error; we try again (%(tries)s tries so far)."),
        N_("Your request is safe. If it lasts, tell your administrator what is quoted below."),
    ),
    "spawner-missing": Sentence(
        N_("The computing system it was meant for is not part of this site at the moment."),
        N_("Cancel it and choose another profile, or ask your administrator."),
    ),
    "proxy-away": Sentence(
        N_("Your server runs, but the way to it is not open: the proxy does not answer."),
        N_(
            "It opens by itself once the proxy answers again. If it lasts, tell your administrator."
        ),
    ),
    "breaker": Sentence(
        N_("Many servers seem to have vanished at once, which we do not believe without a check."),
        N_("Nothing is stopped until an administrator has looked."),
    ),
    "queue-limit-cancels": Sentence(
        N_("It has waited for %(limit_seconds)s. Shall it go on waiting?"),
        N_("Keep waiting, or change the request. Without an answer it is cancelled before long."),
    ),
    "queue-limit-asked": Sentence(
        N_("It has waited for %(limit_seconds)s. Shall it go on waiting?"),
        N_(
            "Keep waiting, change the request, or cancel it. Its place in the queue is still yours."
        ),
    ),
}
"""Why a launch waits."""

PRECISE: Final[Mapping[str, Sequence[Sentence]]] = {
    "pulling-image": [
        Sentence(
            N_("The machine is fetching the image with your software: %(percent)s%% so far."),
            WAITING["pulling-image"].advice,
        )
    ],
    "volume-held": [
        Sentence(
            N_(
                "Your storage is still in use by your server “%(server)s” on the machine %(node)s "
                "and has to come free first."
            ),
            WAITING["volume-held"].advice,
        ),
        Sentence(
            N_(
                "Your storage is still in use by your server “%(server)s” and has to come free "
                "first."
            ),
            WAITING["volume-held"].advice,
        ),
    ],
    "volume-held-by-another": [
        Sentence(
            N_(
                "Your storage is still in use by another server on the machine %(node)s and has to "
                "come free first."
            ),
            WAITING["volume-held-by-another"].advice,
        )
    ],
}
"""Said in place of those of `WAITING` where the platform told all that they fill in: the first."""

CLOCKS: Final[Mapping[Clock, Sentence]] = {
    Clock.SUBMIT: Sentence(
        N_("The computing system did not take the request within %(limit)s."),
        N_("It may be overloaded. Try again in a few minutes."),
    ),
    Clock.QUEUE: Sentence(
        N_("It waited in the queue for %(limit)s, the longest time your site allows."),
        N_("Ask for less (shorter, fewer cores, less memory): that usually starts sooner."),
    ),
    Clock.START: Sentence(
        N_("It began to start but did not report back within %(limit)s."),
        N_("The last lines of the log usually say why. Try again."),
    ),
    Clock.CONNECT: Sentence(
        N_("It started but did not answer within %(limit)s."),
        N_("The last lines of the log usually say why. Try again."),
    ),
}
"""The four clocks of a start, when one has run out."""

CANNOT: Final[Mapping[str, Sentence]] = {
    **{f"{clock}-clock": sentence for clock, sentence in CLOCKS.items()},
    "rejected": Sentence(
        N_("The computing system refused the request."),
        N_("Its own words are below. Choose other options, or ask your administrator."),
    ),
    "bad-option": Sentence(
        N_("The computing system did not understand one of the options."),
        N_("Its own words are below. Choose other options, or ask your administrator."),
    ),
    "account-unknown": Sentence(
        N_("You have no account on the computing system."),
        N_("Ask your administrator for one."),
    ),
    "account-refused": Sentence(
        N_("Your account on the computing system may not start anything."),
        N_("It may have expired or be locked. Ask your administrator."),
    ),
    "launcher-refused": Sentence(
        N_("This site may not start anything in your name."),
        N_("This is for your administrator to repair."),
    ),
    "launcher-silent": Sentence(
        N_("The computing system did not answer in time."),
        N_("It may be overloaded. Try again in a few minutes."),
    ),
    "hub-unreachable": Sentence(
        N_("It ran, but could not reach this site from its machine."),
        N_("Tell your administrator what is quoted below."),
    ),
    "cannot-reach": Sentence(
        N_("It ran, but this site could not reach it on its machine."),
        N_("Tell your administrator what is quoted below."),
    ),
    "host-refused": Sentence(
        N_("It named an address that is not one of its machines, so we did not believe it."),
        N_("Tell your administrator what is quoted below."),
    ),
    "port-refused": Sentence(
        N_("It named a port that is not among those this site allows."),
        N_("Tell your administrator what is quoted below."),
    ),
    "port-range-full": Sentence(
        N_("Its machine has no free network port left for it."),
        N_("Try again: another machine may have one."),
    ),
    "port-taken": Sentence(
        N_("Another program took the network port it needed."),
        N_("Try again."),
    ),
    "job-mismatch": Sentence(
        N_("Another job answered in its place, and we did not accept it."),
        N_("Try again. If it happens twice, send the diagnostic id to your administrator."),
    ),
    "code-refused": Sentence(
        N_("Its proof of identity was not accepted."),
        N_("Try again. If it happens twice, send the diagnostic id to your administrator."),
    ),
    "second-job": Sentence(
        N_("Another job of the same session was faster, and this one gave way."),
        N_("Try again. If it happens twice, send the diagnostic id to your administrator."),
    ),
    "tunnel-failed": Sentence(
        N_("It ran, but could not open the way from its machine to this site."),
        N_("Tell your administrator what is quoted below."),
    ),
    "command-missing": Sentence(
        N_("The program to start was not found."),
        N_("This is for your administrator to repair."),
    ),
    "command-failed": Sentence(
        N_("Its program ended before it could answer."),
        N_("The last lines of the log usually say why. Try again."),
    ),
    "module-failed": Sentence(
        N_("A software module could not be loaded."),
        N_("Choose other software, or tell your administrator what is quoted below."),
    ),
    "environment-missing": Sentence(
        N_("The software environment is not there, or cannot be read."),
        N_("Choose other software, or tell your administrator what is quoted below."),
    ),
    "container-failed": Sentence(
        N_("The container could not be started."),
        N_("Choose other software, or tell your administrator what is quoted below."),
    ),
    "setup-failed": Sentence(
        N_("A command that prepares the session failed."),
        N_("The last lines of the log usually say why. Try again."),
    ),
    "python-too-old": Sentence(
        N_("The machine has no Python that is recent enough."),
        N_("This is for your administrator to repair."),
    ),
    "home-missing": Sentence(
        N_("Your home directory is not there on the machine it was to run on."),
        N_("Try again on another partition, or tell your administrator."),
    ),
    "home-full": Sentence(
        N_("Your home directory is full, so it cannot write its files."),
        N_("Delete files that you no longer need, then start it again."),
    ),
    "spec-unreadable": Sentence(
        N_("The machine could not read what was prepared for the session."),
        N_("Try again. If it happens twice, send the diagnostic id to your administrator."),
    ),
    "wrapper-failed": Sentence(
        N_("The program that prepares the session made a mistake."),
        N_("Try again. If it happens twice, send the diagnostic id to your administrator."),
    ),
    "image-not-found": Sentence(
        N_("There is no image of this name."),
        N_(
            "Check the name if you entered it yourself. If not, tell your administrator what is "
            "quoted below."
        ),
    ),
    "image-denied": Sentence(
        N_("This site was not allowed to fetch the image."),
        N_("Choose another image, or tell your administrator what is quoted below."),
    ),
    "image-not-allowed": Sentence(
        N_("A rule of this site does not allow this image."),
        N_("Choose another image, or ask your administrator."),
    ),
    "image-invalid": Sentence(
        N_("What was entered cannot be the name of an image."),
        N_("Correct the name, or choose another image."),
    ),
    "image-pull-failed": Sentence(
        N_("The image with your software could not be fetched."),
        N_("Try again. If it happens twice, tell your administrator what is quoted below."),
    ),
    "container-refused": Sentence(
        N_("The computing system refused to create the container."),
        N_("Choose other options, or tell your administrator what is quoted below."),
    ),
    "config-missing": Sentence(
        N_("A setting or a secret that it needs is missing on the computing system."),
        N_("Tell your administrator what is quoted below."),
    ),
    "init-failed": Sentence(
        N_("A step that prepares the server failed."),
        N_("The last lines of the log usually say why. Try again."),
    ),
    "volume-failed": Sentence(
        N_("Your storage could not be connected to the machine."),
        N_("Tell your administrator what is quoted below."),
    ),
    "volume-missing": Sentence(
        N_("The storage with your files was not found."),
        N_("Tell your administrator what is quoted below."),
    ),
    "no-storage": Sentence(
        N_("This site has no storage of the kind that your files are to be kept on."),
        N_("Tell your administrator what is quoted below."),
    ),
    "platform-forbids": Sentence(
        N_("This site lacks a right on the computing system that it needs to start your server."),
        N_("This is for your administrator to repair."),
    ),
    "evicted": Sentence(
        N_("Its machine had to make room and ended it before it was ready."),
        N_("This was not your doing. Start it again."),
    ),
    "cancelled": Sentence(
        N_("It was cancelled before it had started."),
        N_("Start it again whenever you like."),
    ),
    "absent": Sentence(
        N_("The computing system does not know of it any more, and it has not been heard of."),
        N_("Try again. If it happens twice, send the diagnostic id to your administrator."),
    ),
}
"""What stopped a start, besides what can never start."""
