import Crypto
import JobModel
import JobTransport
import Logging
import NATSClient
import SchedulerCore
import Synchronization
import WireJSON

/// Pulls submissions for the core, and acknowledges what it has settled.
final class SubmissionDesk: Sendable {
    private struct State {
        var number: UInt64 = 0
        var unsettled: [UInt64: JetStreamMessage] = [:]
        var puller: PullConsumer?
        /// What the core asked for before there was a consumer.
        var earlyDemand = 0
        var serverClockOffset = Duration.zero
    }

    private enum Change: Sendable {
        case consumerMissing
        case server(String)
    }

    private let context: MaestroContext
    private let mailbox: Mailbox<SchedulerEvent>
    private let changes = Mailbox<Change>(capacity: 64)
    private let state = Mutex(State())

    init(context: MaestroContext, mailbox: Mailbox<SchedulerEvent>) {
        self.context = context
        self.mailbox = mailbox
    }

    /// What to add to a time of the server to get one of ours.
    var serverClockOffset: Duration {
        get { state.withLock { $0.serverClockOffset } }
        set { state.withLock { $0.serverClockOffset = newValue } }
    }

    /// Keeps the durable consumer: makes it anew at the start and after each restart of the server, since an old
    /// server can lose the place of a consumer. Redelivered submissions are known by their records.
    func serve() async {
        let observer = context.connection.addObserver { [changes] event in
            switch event {
            case .connected(let server), .reconnected(let server): changes.sendOutcome(.server(server.serverID))
            case .disconnected, .closed, .asyncError: break
            }
        }
        defer { observer.cancel() }
        var server = context.connection.serverInfo?.serverID
        guard await makeConsumer() else { return }
        start()
        while !Task.isCancelled {
            let batch = await changes.receive()
            if batch.isEmpty { return }
            var isNeeded = false
            for change in batch {
                switch change {
                case .consumerMissing: isNeeded = true
                case .server(let id):
                    isNeeded = isNeeded || id != server
                    server = id
                }
            }
            guard isNeeded else { continue }
            guard await makeConsumer() else { return }
            state.withLock { $0.puller }?.retryNow()
        }
    }

    func stop() {
        changes.close()
        state.withLock { $0.puller.take() }?.close()
    }

    private func makeConsumer() async -> Bool {
        let config: JSON = [
            "durable_name": .string(context.names.enqueueConsumer), "ack_policy": "explicit", "deliver_policy": "all",
            "ack_wait": .int(Duration.seconds(30).wholeNanoseconds), "max_deliver": -1,
            "max_ack_pending": .int(context.settings.policy.admissionWindow * 4),
            "filter_subject": .string(context.names.enqueueSubject), "max_waiting": 64,
        ]
        while !Task.isCancelled {
            do {
                _ = try await context.jetStream.recreateConsumer(stream: context.names.workQueueStream, config)
                return true
            } catch {
                context.logger.warning(
                    "the consumer of submissions cannot be made yet",
                    metadata: ["error": "\(error)"]
                )
                await Pause.afterFailure()
            }
        }
        return false
    }

    private func start() {
        var options = PullConsumer.Options()
        options.capacity = context.settings.policy.admissionWindow
        do throws(NATSError) {
            let puller = try PullConsumer(
                context.jetStream,
                stream: context.names.workQueueStream,
                consumer: context.names.enqueueConsumer,
                options: options,
                onEvent: { [changes, logger = context.logger] event in
                    if event == .consumerMissing { changes.sendOutcome(.consumerMissing) }
                    logger.debug("pulling submissions", metadata: ["event": "\(event)"])
                },
                handler: { [weak self] in self?.take($0) }
            )
            let demand = state.withLock { state in
                state.puller = puller
                defer { state.earlyDemand = 0 }
                return state.earlyDemand
            }
            if demand > 0 { puller.request(demand) }
        } catch {
            context.logger.error("submissions cannot be pulled", metadata: ["error": "\(error)"])
        }
    }

    /// Asks for that many submissions more.
    func pull(_ count: Int) {
        let puller = state.withLock { state in
            if state.puller == nil { state.earlyDemand += count }
            return state.puller
        }
        puller?.request(count)
    }

    private func take(_ message: JetStreamMessage) {
        let (token, offset) = state.withLock { state in
            state.number += 1
            state.unsettled[state.number] = message
            return (state.number, state.serverClockOffset)
        }
        let stored = Timestamp(nanoseconds: message.metadata.timestamp) + offset
        mailbox.send(
            .submitted(
                Submission(
                    bytes: message.payload,
                    digest: Self.digest(message.payload),
                    sequence: message.metadata.streamSequence,
                    timestamp: message.metadata.timestamp,
                    age: context.clock.now() - stored,
                    token: token
                )
            )
        )
    }

    /// Acknowledges settled submissions. An ack that is lost brings the submission again, and its record tells it.
    func settle(_ tokens: [UInt64]) {
        for token in tokens {
            guard let message = state.withLock({ $0.unsettled.removeValue(forKey: token) }) else { continue }
            do throws(NATSError) {
                try message.ack()
            } catch {
                context.logger.debug("a submission could not be acknowledged", metadata: ["error": "\(error)"])
            }
        }
    }

    private static func digest(_ bytes: [UInt8]) -> String {
        let digits = Array("0123456789abcdef".utf8)
        var text = Array("sha256:".utf8)
        for byte in SHA256.hash(data: bytes) {
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }
}
