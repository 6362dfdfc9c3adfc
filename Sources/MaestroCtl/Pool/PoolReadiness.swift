import JobModel
import JobTransport
import NATSClient
import ServiceSupport

/// Waits until a pool that was just started works: a maestro leads and knows every worker.
struct PoolReadiness: Sendable {
    let address: ServerURL
    let cards: [GPUID]
    /// How long all may take.
    var deadline = Duration.seconds(60)

    private enum Event: Sendable {
        /// Something was said that may mean that it is ready now.
        case sign
        case answer(Missing)
        case deadline
        case cancelled
    }

    /// What is not there yet.
    enum Missing: Sendable, Equatable {
        case nothing
        case maestro
        case workers([GPUID])
    }

    /// - Throws: when it is not ready by the deadline: what is missing.
    func wait() async throws(FatalError) {
        let settings: Settings
        do {
            let override = Settings.Override(key: "NATS_URL", flag: "--port", value: address.text)
            let schema = SettingsSchema(defaultFile: nil, fileVariable: nil, keys: CommonKeys.all)
            settings = try Settings(schema: schema, overrides: [override], environment: { _ in nil })
        } catch {
            throw FatalError(error)
        }
        let client = try await PoolClient(settings: settings, patience: deadline)
        do {
            try await wait(client)
            await client.close()
        } catch {
            await client.close()
            throw PoolClient.failure(error, "the pool")
        }
    }

    private func wait(_ client: PoolClient) async throws {
        let mailbox = Mailbox<Event>()
        let names = client.names
        let subjects = [
            names.maestroEvent("state"), names.maestroEvent("heartbeat"), names.workerUp, names.heartbeat,
        ]
        let subscriptions = try subjects.map { subject in
            try client.connection.subscribe(subject) { _ in mailbox.sendOutcome(.sign) }
        }
        let timer = DeadlineTimer(on: client.connection.loop) { mailbox.sendOutcome(.deadline) }
        timer.arm(after: deadline)
        defer {
            for subscription in subscriptions { subscription.cancel() }
            timer.cancel()
        }
        // They may have been ready before anybody listened.
        mailbox.sendOutcome(.sign)
        try await withTaskCancellationHandler {
            try await listen(client, mailbox)
        } onCancel: {
            mailbox.sendOutcome(.cancelled)
        }
    }

    private func listen(_ client: PoolClient, _ mailbox: Mailbox<Event>) async throws {
        try await withThrowingTaskGroup { group in
            defer { group.cancelAll() }
            var missing = Missing.maestro
            var isAsking = false
            var isStale = false
            while true {
                for event in await mailbox.receive() {
                    switch event {
                    case .sign where isAsking: isStale = true
                    case .sign:
                        isAsking = true
                        group.addTask { mailbox.sendOutcome(.answer(try await ask(client))) }
                    case .answer(.nothing): return
                    case .answer(let still):
                        missing = still
                        isAsking = false
                        if isStale { mailbox.sendOutcome(.sign) }
                        isStale = false
                    case .cancelled: throw CancellationError()
                    case .deadline:
                        let time = Printable.duration(deadline.inSeconds)
                        throw FatalError(.unavailable, "the pool is not ready after \(time): \(Self.words(missing))")
                    }
                }
            }
        }
    }

    private func ask(_ client: PoolClient) async throws(MaestroAPIError) -> Missing {
        do throws(MaestroAPIError) {
            let alive = try await client.api.cards().filter { isThere($0) }.map(\.gpu)
            let missing = cards.filter { !alive.contains($0) }
            return missing.isEmpty ? .nothing : .workers(missing)
        } catch {
            if case .refused = error { throw error }
            return .maestro
        }
    }

    /// Whether its worker was heard of, be the card usable or not.
    private func isThere(_ card: CardView) -> Bool { !["gone", "no worker"].contains(card.state) }

    private static func words(_ missing: Missing) -> String {
        switch missing {
        case .nothing: "nothing is missing"
        case .maestro: "no maestro leads"
        case .workers(let cards): "not heard of: " + cards.map { "gpu-worker \($0)" }.joined(separator: ", ")
        }
    }
}
