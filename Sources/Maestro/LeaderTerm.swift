import JobModel
import JobTransport
import Logging
import NATSClient
import SchedulerCore
import ServiceSupport

/// One term of office: the shell of ``SchedulerCore``.
///
/// Listens to records, workers, submissions and requests; gives what it hears to the core, event by event; starts the
/// core's actions as child tasks, whose outcomes come back as events.
struct LeaderTerm: Sendable {
    let context: MaestroContext
    let trust: LeaseTrust
    let mailbox: Mailbox<SchedulerEvent>
    let unsettled = Mailbox<Unsettled>()
    let echoes = RecordEchoes()
    let requests: RequestDesk
    let submissions: SubmissionDesk

    init(context: MaestroContext, trust: LeaseTrust) {
        self.context = context
        self.trust = trust
        mailbox = Mailbox()
        mailbox.receiverRuns(onLoop: true)
        requests = RequestDesk(context: context, mailbox: mailbox)
        submissions = SubmissionDesk(context: context, mailbox: mailbox)
    }

    /// Leads until the task is cancelled, or until it is another server that answers: one that lost its power may have put
    /// its streams back, each a little differently, and nothing that was heard before it came back need be true.
    /// - Throws: what only a person can put right.
    func run() async throws(FatalError) {
        guard try await prepare(), let beginning = await beginning() else { return }
        let server = context.connection.serverInfo?.serverID
        submissions.serverClockOffset = beginning.offset
        mailbox.sendOutcome(.began(resultsPlace: beginning.place, serverClockOffset: beginning.offset))
        let sources = EventSources(
            context: context,
            mailbox: mailbox,
            requests: requests,
            echoes: echoes,
            serverClockOffset: beginning.offset,
            server: server
        )
        do {
            try sources.start()
        } catch {
            throw FatalError(.internalDefect, "cannot listen on the bus: \(error)")
        }
        let timer = DeadlineTimer(on: context.connection.loop) { [mailbox] in mailbox.send(.timerFired) }
        await withTaskCancellationHandler {
            await withTaskExecutorPreference(context.connection.loop) {
                await withDiscardingTaskGroup { group in
                    await serve(timer: timer, in: &group)
                    unsettled.close()
                    submissions.stop()
                    group.cancelAll()
                }
            }
        } onCancel: {
            mailbox.close()
            unsettled.close()
            submissions.stop()
        }
        timer.cancel()
        requests.stop()
        sources.stop()
    }

    /// Makes or checks the streams, until that has worked.
    /// - Returns: false when the term ended before.
    private func prepare() async throws(FatalError) -> Bool {
        while !Task.isCancelled {
            do throws(PoolStreamsError) {
                try await PoolStreams(names: context.names, limits: context.settings.limits).ensureAll(
                    context.jetStream
                )
                return true
            } catch {
                guard error.isTransient else { throw FatalError(.configuration, error.description) }
                context.logger.warning("the streams cannot be checked yet", metadata: ["error": "\(error)"])
                await Pause.afterFailure()
            }
        }
        return false
    }

    private func serve(timer: DeadlineTimer, in group: inout DiscardingTaskGroup) async {
        var core = SchedulerCore(policy: context.settings.policy, ids: IdentifierSource())
        group.addTask { await submissions.serve() }
        group.addTask { await settleUnsettled() }
        group.addTask { await watchStore() }
        group.addTask { await context.day.follow { [mailbox] in mailbox.sendOutcome(.phase($0)) } }
        let pulse = Pulse(context: context)
        group.addTask { await pulse.run() }
        group.addTask { [mailbox] in await context.watchdog.run { mailbox.sendOutcome(.timerFired) } }
        // The loop reads the records of a large pool while the core takes in those that came before. Afterwards the core is
        // on the loop too: to hand an event to another thread costs more than to handle it.
        await withTaskExecutorPreference(globalConcurrentExecutor) {
            // Only while this task is off the loop may the loop wait for it, which it could not leave or come back to else.
            mailbox.receiverRuns(onLoop: false)
            await handleEvents(untilReplayed: true, &core, pulse, timer, &group)
            mailbox.receiverRuns(onLoop: true)
        }
        await handleEvents(untilReplayed: false, &core, pulse, timer, &group)
    }

    /// Gives the core what is heard, until the mailbox is closed.
    /// - Parameter untilReplayed: returns when the core knows all records, if that comes first.
    private func handleEvents(
        untilReplayed: Bool,
        _ core: inout SchedulerCore,
        _ pulse: Pulse,
        _ timer: DeadlineTimer,
        _ group: inout DiscardingTaskGroup
    ) async {
        var goesOn = true
        while goesOn {
            let events = await mailbox.receive()
            if events.isEmpty { return }
            // After a stall everything that had arrived is heard before a deadline may call anybody lost.
            for event in events.timersLast {
                let now = context.clock.now()
                if case .replayFinished = event {
                    openForRequests()
                    goesOn = !untilReplayed
                }
                for action in core.handle(event, at: now) { perform(action, at: now, timer, &group) }
            }
            context.watchdog.noteProgress()
            pulse.note(alive: core.aliveCards, queueSize: core.queueSize, inflight: core.inflight)
        }
    }

    private func openForRequests() {
        do {
            try requests.start()
        } catch {
            context.logger.error("requests cannot be answered", metadata: ["error": "\(error)"])
        }
    }

    // MARK: beginning

    /// The results' place as it was stored, and how the server's clock stands to ours. The lease was stored a moment
    /// ago, so its time tells the latter to within its age.
    private func beginning() async -> (place: UInt64, offset: Duration)? {
        while !Task.isCancelled {
            do {
                let place = try await context.jetStream.lastMessage(
                    stream: context.names.controlStream,
                    subject: context.names.resultsPlace
                )
                let asked = context.clock.now()
                let lease = try await context.jetStream.lastMessage(
                    stream: context.names.controlStream,
                    subject: context.names.leader
                )
                let through = try place.map { try ResultsPlace(parsing: $0.payload).through } ?? 0
                let offset = lease.map { asked - Timestamp(nanoseconds: $0.timestamp) } ?? .zero
                return (through, offset)
            } catch {
                context.logger.warning("the place of the results cannot be read yet", metadata: ["error": "\(error)"])
                await Pause.afterFailure()
            }
        }
        return nil
    }
}

extension [SchedulerEvent] {
    fileprivate var timersLast: [SchedulerEvent] {
        contains { $0.isTimer } ? filter { !$0.isTimer } + filter(\.isTimer) : self
    }
}

extension SchedulerEvent {
    fileprivate var isTimer: Bool {
        if case .timerFired = self { true } else { false }
    }
}
