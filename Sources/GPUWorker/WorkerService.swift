import Dispatch
import EventLoop
import JobModel
import JobTransport
import Logging
import NATSClient
import ServiceSupport
import Synchronization
import TaskRunner
import WireJSON
import WorkerCore

/// A running gpu-worker, from start to stop.
struct WorkerService: Sendable {
    let settings: WorkerSettings
    let logger: Logger

    private typealias Keys = WorkerSettings.Keys

    func run() async throws(FatalError) {
        let signals = try TerminationSignals.stream()
        if let list = settings.settings[Keys.cpuSet] { try Affinity.restrict(to: list) }
        let lock = try takeLock()
        let device = try await CardChoice.device(settings, logger)
        let launcher: TaskLauncher
        let loop: EventLoop
        let runner: TaskRunner
        let jobs = try JobConfinement(settings)
        var trust: SubmitterTrust?
        if let path = settings.settings[Keys.trustedSubmitters] { trust = try SubmitterTrust(path: path) }
        let context = try makeContext(device, jobs, trust)
        let mailbox = Mailbox<WorkerEvent>()
        mailbox.receiverRuns(onLoop: true)
        for remark in jobs.remarks { logger.notice("\(remark)") }
        let caches = CacheDesk(context: context)
        do throws(TaskRunnerError) {
            let journal = try AttemptJournal(root: settings.logDirectory, limits: limits(share: 1))
            let directories = try TaskDirectories(
                cachePath: settings.cacheDirectory,
                limits: limits(share: 4),
                owner: jobs.confinement.user
            )
            loop = try makeLoop()
            runner = try TaskRunner(
                loop: loop,
                workerMarker: settings.marker,
                confinement: jobs.confinement
            )
            launcher = TaskLauncher(
                context: context,
                mailbox: mailbox,
                runner: runner,
                journal: journal,
                directories: directories,
                caches: caches
            )
        } catch {
            throw FatalError(error, settings)
        }
        let pulse = WorkerPulse(context: context)
        let preparing = Task { try await prepare(context, launcher) }
        let stopping = Task {
            var isFirst = true
            for await signal in signals {
                logger.notice("stopping", metadata: ["signal": "\(TerminationSignals.name(of: signal))"])
                pulse.stopping()
                preparing.cancel()
                mailbox.sendOutcome(.stopAsked)
                if isFirst { endAtLast(mailbox) }
                isFirst = false
            }
        }
        defer { stopping.cancel() }
        let registration: Registration
        switch await preparing.result {
        case .success(let value): registration = value
        case .failure(let error as FatalError): throw error
        case .failure(let error):
            logger.info("ended before it was ready", metadata: ["reason": "\(error)"])
            return await context.connection.close()
        }
        let keeper = CardKeeper(
            context: context,
            mailbox: mailbox,
            launcher: launcher,
            command: settings.settings[Keys.probeCommand].map {
                ProbeCommand(line: $0, context: context, runner: runner)
            }
        )
        try await serve(context, mailbox, launcher, pulse, keeper, caches, registration)
        await context.connection.close()
        loop.stop()
        _ = consume lock
    }

    /// A server that does not come back keeps no worker from ending: its next life closes what is left.
    private func endAtLast(_ mailbox: Mailbox<WorkerEvent>) {
        let limit =
            settings.settings.duration(Keys.drain) + settings.settings.duration(Keys.killGrace)
            + TaskRunner.Limits().kill + Self.lastWrites
        DispatchQueue.global().asyncAfter(deadline: .now() + limit.inSeconds) { mailbox.close() }
    }

    /// What the last writes may take after the drain and the kills.
    private static let lastWrites = Duration.seconds(15)

    /// There is one worker for a card: the second one is told who the first is.
    private func takeLock() throws(FatalError) -> WorkerLock {
        do throws(TaskRunnerError) {
            // Also makes the directory that the lock stands in.
            _ = try AttemptJournal(root: settings.logDirectory, limits: limits(share: 1))
            return try WorkerLock(path: "\(settings.logDirectory)/worker.lock")
        } catch {
            throw FatalError(error, settings)
        }
    }

    private struct Registration: Sendable {
        let registrar: Registrar
        let sequence: UInt64
        let recovered: [RecoveredAttempt]
    }

    private func limits(share: UInt64) -> PruneLimits {
        PruneLimits(
            age: .seconds(settings.settings[Keys.keepAge] * 3600),
            count: settings.settings[Keys.keepCount],
            bytes: UInt64(settings.settings[Keys.keepSize]) << 20 / share
        )
    }

    /// Serves the tasks' output and ends: apart from the bus, whose messages must not wait for a disk.
    private func makeLoop() throws(TaskRunnerError) -> EventLoop {
        do throws(Errno) {
            return try EventLoop()
        } catch {
            throw TaskRunnerError(.resources, "cannot start an event loop", cause: error)
        }
    }

    private func makeContext(_ device: any WorkerDevice, _ jobs: JobConfinement, _ trust: SubmitterTrust?)
        throws(FatalError) -> WorkerContext
    {
        var ids = IdentifierSource()
        let connection: NATSConnection
        do throws(NATSError) {
            connection = try NATSConnection(
                options: settings.settings.connectionOptions(name: "gpu-worker@\(settings.gpu)")
            )
            try connection.start()
        } catch {
            throw FatalError(.configuration, "the connection to the NATS server cannot be set up: \(error)")
        }
        let bootID: String
        do throws(FileContents.Failure) {
            bootID = try HostInfo.bootID()
        } catch {
            throw FatalError(.internalDefect, "the boot of this machine cannot be told: \(error)")
        }
        let jetStream = JetStream(connection)
        return WorkerContext(
            settings: settings,
            connection: connection,
            jetStream: jetStream,
            records: RecordStore(jetStream, names: settings.names),
            clock: MonotonicClock(),
            incarnation: Incarnation(from: &ids),
            bootID: bootID,
            device: device,
            jobs: jobs,
            trust: trust,
            logger: logger
        )
    }

    /// Ends what earlier lives left, reaches the server, and takes the card.
    /// - Throws: ``FatalError``, or `CancellationError` when told to stop.
    private func prepare(_ context: WorkerContext, _ launcher: TaskLauncher) async throws -> Registration {
        let work = BlockingWork(label: "gpu-worker.recovery")
        let recovery = await work.run { () -> Result<[RecoveredAttempt], TaskRunnerError> in
            do throws(TaskRunnerError) {
                return .success(try launcher.recover())
            } catch {
                return .failure(error)
            }
        }
        let recovered: [RecoveredAttempt]
        switch recovery {
        case .success(let attempts): recovered = attempts
        case .failure(let error): throw FatalError(error, settings)
        }
        try await ServerWait(context.connection, settings: settings.settings, logger: logger).reach()
        let registrar = Registrar(
            control: ControlStore(context.jetStream, names: settings.names),
            connection: context.connection,
            names: settings.names,
            gpu: settings.gpu,
            incarnation: context.incarnation,
            host: HostInfo.name,
            bootID: context.bootID,
            facts: context.facts,
            patience: settings.settings.duration(Keys.heartbeatTTL),
            logger: logger
        )
        let sequence = try await registrar.register()
        return Registration(registrar: registrar, sequence: sequence, recovered: recovered)
    }

    private func serve(
        _ context: WorkerContext,
        _ mailbox: Mailbox<WorkerEvent>,
        _ launcher: TaskLauncher,
        _ pulse: WorkerPulse,
        _ keeper: CardKeeper,
        _ caches: CacheDesk,
        _ registration: Registration
    ) async throws(FatalError) {
        let requests = RequestDesk(context: context, mailbox: mailbox, pulse: pulse, caches: caches)
        let inbox = RunInbox(context: context, mailbox: mailbox)
        do throws(NATSError) {
            try requests.start()
            try pulse.listen(mailbox)
            try keeper.start()
            try caches.start()
        } catch {
            throw FatalError(.internalDefect, "cannot listen on the bus: \(error)")
        }
        let replaced = Mutex<FatalError?>(nil)
        let onReplaced: @Sendable (WorkerRegistration) -> Void = { [gpu = settings.gpu] other in
            replaced.withLock { $0 = FatalError(replacing: gpu, with: other) }
            // Twice: what runs is ended without waiting for the drain.
            for _ in 0..<2 { mailbox.sendOutcome(.stopAsked) }
        }
        let doubts = Mailbox<Void>()
        let watch = try watch(context, registration.registrar, onDoubt: { doubts.sendOutcome(()) }, onReplaced)
        let registered = Mutex(registration.sequence)
        let affirming = Task {
            while !(await doubts.receive().isEmpty) {
                switch try await registration.registrar.affirm() {
                case .ours(let sequence): registered.withLock { $0 = sequence }
                case .replaced(let other): onReplaced(other)
                case .unreadable: break
                }
            }
        }
        defer {
            watch.close()
            doubts.close()
            affirming.cancel()
        }
        let policy = WorkerPolicy(
            slots: settings.settings[Keys.slots],
            ackWait: DurableConsumer.ackWait,
            grace: settings.settings.duration(Keys.killGrace),
            drain: settings.settings.duration(Keys.drain),
            checkInterval: settings.settings.duration(Keys.heartbeatTTL),
            claimPatience: settings.settings.duration(Keys.heartbeatTTL) / 3,
            defaultTimeout: settings.settings.duration(Keys.timeout),
            enqueueSubject: settings.names.enqueueSubject
        )
        let core = WorkerCore(
            gpu: settings.gpu,
            incarnation: context.incarnation,
            policy: policy,
            ids: IdentifierSource()
        )
        let shell = WorkerShell(
            context: context,
            mailbox: mailbox,
            inbox: inbox,
            launcher: launcher,
            pulse: pulse,
            requests: requests,
            keeper: keeper,
            caches: caches
        )
        await withTaskExecutorPreference(context.connection.loop) {
            await shell.run(core, recovered: registration.recovered)
        }
        requests.stop()
        caches.stop()
        pulse.stopListening()
        inbox.close()
        await keeper.end()
        if let error = replaced.withLock({ $0 }) { throw error }
        context.tell("down", ["reason": "told to stop"])
        await registration.registrar.release(at: registered.withLock { $0 })
    }
}

extension WorkerService {
    /// A worker whose card was taken over would go on taking the other one's messages.
    private func watch(
        _ context: WorkerContext,
        _ registrar: Registrar,
        onDoubt: @escaping @Sendable () -> Void,
        _ onReplaced: @escaping @Sendable (WorkerRegistration) -> Void
    ) throws(FatalError) -> RegistrationWatch {
        do throws(NATSError) {
            return try registrar.watch(context.jetStream, onDoubt: onDoubt, onReplaced: onReplaced)
        } catch {
            throw FatalError(.internalDefect, "the registration of card \(settings.gpu) cannot be followed: \(error)")
        }
    }
}

extension FatalError {
    fileprivate init(replacing gpu: GPUID, with other: WorkerRegistration) {
        // The card's lock keeps others of this host out, so this can only be a record of the past.
        if other.host == HostInfo.name {
            self.init(
                .internalDefect,
                "the server has put the registration of card \(gpu) back to an older one; start this worker again"
            )
        } else {
            let who = "process \(other.processID) on host \(other.host)"
            self.init(.taken, "\(who) has taken card \(gpu) over, since this worker was not heard of")
        }
    }

    /// Why a worker cannot begin on this machine.
    fileprivate init(_ error: TaskRunnerError, _ settings: WorkerSettings) {
        switch error.code {
        case .locked: self.init(.taken, "card \(settings.gpu): \(error)")
        case .file, .workingDirectory, .outsideCache:
            self.init(
                .configuration,
                "\(error); MERGE_ROOT and LOG_ROOT must be directories that this worker may write"
            )
        case .unkillable, .resources, .system, .invalidTask, .programNotFound, .programNotExecutable:
            self.init(.internalDefect, error.description)
        }
    }
}
