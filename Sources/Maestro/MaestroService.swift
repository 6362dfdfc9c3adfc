import JobModel
import JobTransport
import Logging
import NATSClient
import SchedulerCore
import ServiceSupport
import WireJSON

/// A running maestro: its connection, and its part in leading the pool, from start to stop.
struct MaestroService: Sendable {
    let settings: MaestroSettings
    let logger: Logger

    func run() async throws(FatalError) {
        let signals = try TerminationSignals.stream()
        var ids = IdentifierSource()
        let context = try MaestroContext(
            settings: settings,
            connection: try connect("maestro"),
            incarnation: Incarnation(from: &ids),
            logger: logger
        )
        do {
            try context.day.start()
        } catch {
            throw FatalError(.internalDefect, "cannot listen on the bus: \(error)")
        }
        let leaseConnection = try connect("maestro-lease")
        let leadership = Leadership(
            jetStream: JetStream(leaseConnection),
            work: context.connection,
            names: settings.names,
            clock: context.clock,
            incarnation: context.incarnation,
            duration: settings.lease,
            logger: logger,
            watchdog: context.watchdog,
            term: { trust throws(FatalError) in
                // A term ends before the lead does when the server was started again.
                while !Task.isCancelled { try await LeaderTerm(context: context, trust: trust).run() }
            },
            standby: { lease in
                let body: JSON = [
                    "event": "standby", "leader": .string(lease.holder.text), "leader_host": .string(lease.host),
                    "incarnation": .string(context.incarnation.text), "ts": .double(context.clock.now().seconds),
                ]
                context.tell(body.encoded(), on: context.names.maestroEvent("state"))
            }
        )
        let notifier = context.watchdog.notifier
        let beginning = Task { try await begin(context, notifier) }
        let stopping = Task {
            for await signal in signals {
                logger.notice("stopping", metadata: ["signal": "\(TerminationSignals.name(of: signal))"])
                notifier.stopping()
                beginning.cancel()
                return leadership.stop()
            }
        }
        defer { stopping.cancel() }
        switch await beginning.result {
        case .success: try await leadership.run()
        case .failure(let error as FatalError): throw error
        case .failure: break
        }
        await leaseConnection.close()
        await context.connection.close()
    }

    /// - Parameter name: what the server shows it as.
    private func connect(_ name: String) throws(FatalError) -> NATSConnection {
        do throws(NATSError) {
            let connection = try NATSConnection(options: settings.settings.connectionOptions(name: name))
            try connection.start()
            return connection
        } catch {
            throw FatalError(.configuration, "the connection to the NATS server cannot be set up: \(error)")
        }
    }

    /// Waits for the server and makes the one stream that leading needs; the leader makes the others.
    /// - Throws: what only a person can put right; `CancellationError` when told to stop.
    private func begin(_ context: MaestroContext, _ notifier: ServiceNotifier) async throws {
        try await ServerWait(context.connection, settings: settings.settings, logger: logger).reach()
        while true {
            try Task.checkCancellation()
            do throws(PoolStreamsError) {
                try await PoolStreams(names: settings.names, limits: settings.limits).ensureControl(context.jetStream)
                break
            } catch {
                guard error.isTransient else { throw FatalError(.configuration, error.description) }
                logger.warning(
                    "the streams cannot be made yet; does the NATS server run with JetStream (-js)?",
                    metadata: ["error": "\(error)"]
                )
                await Pause.afterFailure()
            }
        }
        let body: JSON = [
            "incarnation": .string(context.incarnation.text), "host": .string(HostInfo.name),
            "pid": .int(HostInfo.processID), "version": .string(ProgramVersion.text),
            "ts": .double(context.clock.now().seconds),
        ]
        context.tell(body.encoded(), on: context.names.maestroEvent("up"))
        notifier.ready()
    }
}
