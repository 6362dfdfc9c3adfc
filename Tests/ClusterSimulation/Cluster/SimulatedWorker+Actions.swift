import JobModel
import WorkerCore

/// What the core decided, carried out as `WorkerShell` and `TaskLauncher` do.
extension SimulatedWorker {
    func perform(_ action: WorkerAction) {
        switch action {
        case .announceReady:
            isReady = true
            puller?.serve()
            keepBeating()
            keepLooking()
        case .pull(let count): puller?.request(count)
        case .ack(let token): acknowledge(token, .done)
        case .nak(let token, let delay):
            acknowledge(token, .again(delay: delay == .zero ? nil : delay.wholeNanoseconds))
        case .inProgress(let tokens):
            for token in tokens { puller?.acknowledge(token.number, .inProgress) }
        case .prepare(let message): prepare(message)
        case .readRecord(let job, let attempt):
            read(job) { [self] in
                if cluster.mutant == .keepsWhatWasGivenAway, live(attempt)?.life == life { return }
                receive(.recordRead(attempt, $0))
            }
        case .write(let attempt, let record, let expected): write(attempt, record, expected: expected)
        case .start(let attempt, let record): launch(attempt, record)
        case .terminate(let attempt): terminate(attempt)
        case .kill(let attempt): kill(attempt)
        case .examine(let attempt):
            after(cluster.travel()) { [self] in
                look(tells: false)
                receive(.examined(attempt))
            }
        case .report(let report): store(report)
        case .tell(let attempt, let events):
            cluster.pass(.telling, self, nil)
            tell(attempt, events)
        case .refuse(let event, let messageID, let token):
            publish(.event(event.encoded()), names.error, messageID, nil) { [self] in acknowledge(token, .done) }
        case .close(let attempt, _): after(cluster.travel()) { [self] in journal[attempt]?.isOpen = false }
        case .reply(let token, let answer):
            if let address = askers.removeValue(forKey: token) { connection.answer(address, answer) }
        case .probe: probe()
        case .heartbeat: beat()
        case .armTimer(let due): arm(due)
        case .notice(let text): cluster.tell("\(name): \(text)")
        case .fence(let attempt, let until, let grace): fence(attempt, until: until, grace: grace)
        case .finish: break
        }
    }

    private func arm(_ due: Timestamp?) {
        armed = due
        guard let due else { return }
        let life = life
        cluster.agenda.at(moment(of: due)) { [self] in
            guard armed == due, life == self.life else { return }
            take { [self] in
                guard armed == due else { return }
                armed = nil
                receive(.timerFired)
            }
        }
    }

    private func acknowledge(_ token: MessageToken, _ what: ServerModel<Content>.Acknowledgement) {
        guard messages.removeValue(forKey: token) != nil else { return }
        puller?.acknowledge(token.number, what)
    }

    // MARK: records

    private func revision(_ stored: Stored) -> RecordRevision? {
        stored.body.record.map { RecordRevision(record: $0, sequence: stored.sequence) }
    }

    private func read(_ job: JobID, _ done: @escaping (RecordRevision?) -> Void) {
        connection.last(of: names.state(job), in: names.jobsStream) { [self] reply in
            guard case .answer(let stored) = reply else { return afterFailure { [self] in read(job, done) } }
            done(stored.flatMap(revision))
        }
    }

    private func prepare(_ message: RunMessage) {
        guard let attempt = message.attempt else { return }
        read(message.record.id) { [self] revision in
            let isForbidden = cluster.scenario.isForbidden(message.record.id)
            let objection = isForbidden ? TaskObjection(code: .forbidden, reason: "not here") : nil
            receive(.prepared(attempt, revision, objection))
        }
    }

    private func write(_ attempt: AttemptID, _ record: JobRecord, expected: UInt64) {
        cluster.pass(.writing(record.state), self, record.id)
        guard isRunning else { return }
        if cluster.mutant == .startsBeforeTheClaim, record.state == .running {
            return receive(.writeEnded(attempt, record.op, .stored(sequence: expected + 1)))
        }
        connection.compareAndSet(
            record,
            to: names.state(record.id),
            stream: names.jobsStream,
            expected: expected,
            holding: attempt
        ) { [self] outcome in
            switch outcome {
            case .stored(let sequence):
                cluster.pass(.written(record.state), self, record.id)
                receive(.writeEnded(attempt, record.op, .stored(sequence: sequence)))
            case .conflict(let stored):
                receive(.writeEnded(attempt, record.op, .conflict(stored.flatMap(revision))))
            case .refused(let reason): receive(.writeEnded(attempt, record.op, .refused(reason)))
            case .unknown: break
            }
        }
    }

    // MARK: processes

    private func launch(_ attempt: AttemptID, _ record: JobRecord) {
        let isFenced = record.limits.fence != nil
        let plan = cluster.scenario.process(of: record.id, tries: record.tries, isFenced: isFenced)
        entries += 1
        journal[attempt] = Entry(job: record.id, number: entries)
        let decided = cluster.now
        after(cluster.travel()) { [self] in
            if plan.failsToStart || diskFullUntil > cluster.now {
                let code: FailureCode = plan.failsToStart ? .spawn : .workerFault
                return receive(.startFailed(attempt, code, reason: "cannot be started"))
            }
            guard let order = fences[attempt] else { return spawn(attempt, record, plan, decidedAt: decided) }
            guard order.due - cluster.now > .milliseconds(100) else {
                cluster.cover("a fence is closed before the start")
                return receive(.startFailed(attempt, .fenced, reason: "cut off before it was started"))
            }
            watchdogs[attempt] = JobWatchdog(of: attempt, on: self, order)
            cluster.pass(.guarded, self, record.id)
            after(cluster.travel()) { [self] in spawn(attempt, record, plan, decidedAt: decided) }
        }
    }

    private func spawn(
        _ attempt: AttemptID,
        _ record: JobRecord,
        _ plan: Scenario.ProcessPlan,
        decidedAt: Timestamp
    ) {
        let process = Process(attempt, of: record, life: life, decidedAt: decidedAt, at: cluster.now)
        processes.removeAll { !$0.isAlive && $0.life < life }
        processes.append(process)
        watchdogs[attempt]?.guards(process)
        if let order = fences[attempt] { watchdogs[attempt]?.take(order) }
        cluster.ledger.noteStart(of: process, by: self)
        cluster.pass(.started, self, record.id)
        // It goes on when its worker is killed.
        onHost(after: plan.duration) { [self] in exit(process, .code(plan.exitCode)) }
        guard isRunning else { return }
        receive(.started(attempt, directory: "/"))
    }

    /// The process ends, and its worker hears of that.
    func exit(_ process: Process, _ exit: ProcessEnd.Exit) {
        guard process.isAlive else { return }
        process.isAlive = false
        process.exit = exit
        watchdogs.removeValue(forKey: process.attempt)?.dismiss()
        guard process.life == life else { return }
        take { [self] in
            guard !process.isTold else { return }
            process.isTold = true
            cluster.pass(.exited, self, process.job)
            receive(.ended(process.attempt, ProcessEnd(exit: exit)))
        }
    }

    private func live(_ attempt: AttemptID) -> Process? { processes.first { $0.attempt == attempt && $0.isAlive } }

    private func terminate(_ attempt: AttemptID) {
        guard let process = live(attempt) else { return }
        if cluster.mutant == .callsItKilled {
            process.isTold = true
            return receive(.ended(attempt, ProcessEnd(exit: .signal(15))))
        }
        terminate(process)
    }

    /// SIGTERM, which some heed.
    func terminate(_ process: Process) {
        let plan = cluster.scenario.process(of: process.job, tries: 0)
        guard !plan.ignoresTerm else { return }
        onHost(after: cluster.chance.seconds(0.01...1)) { [self] in exit(process, .signal(15)) }
    }

    /// SIGKILL.
    func kill(_ process: Process) {
        onHost(after: cluster.chance.seconds(0.01...0.2)) { [self] in exit(process, .signal(9)) }
    }

    private func kill(_ attempt: AttemptID) {
        if let process = live(attempt) { kill(process) }
    }

    private func store(_ report: AttemptReport) {
        after(cluster.travel()) { [self] in
            if cluster.mutant != .losesReports, diskFullUntil <= cluster.now {
                journal[report.attempt]?.report = report
            }
            cluster.pass(.reported, self, report.job)
            receive(.reported(report.attempt))
        }
    }

    // MARK: events

    private func tell(_ attempt: AttemptID, _ events: [OutgoingEvent]) {
        guard let event = events.first else {
            cluster.pass(.told, self, nil)
            return receive(.told(attempt))
        }
        let rest = Array(events.dropFirst())
        let next = { [self] in tell(attempt, rest) }
        switch event {
        case .done(let payload, let id): publish(.event(payload), names.done, id, nil, next)
        case .error(let payload, let id): publish(.event(payload), names.error, id, nil, next)
        case .result(let job, let payload):
            publish(.event(payload), names.result(job), nil, cluster.mutant == .repeatsResults ? nil : 0, next)
        }
    }

    /// Stores one event; goes on until it is stored, or was before.
    private func publish(
        _ content: Content,
        _ subject: String,
        _ messageID: String?,
        _ expected: UInt64?,
        _ done: @escaping () -> Void
    ) {
        connection.publishUntilDefinite(
            content,
            to: subject,
            messageID: messageID,
            expected: expected,
            until: never
        ) { [self] outcome in
            switch outcome {
            case .stored, .wrongLastSequence, .unknown: done()
            case .refused: afterFailure { [self] in publish(content, subject, messageID, expected, done) }
            }
        }
    }
}
