import JobModel
import JobTransport
import NATSClient
import ServiceSupport
import WireJSON

/// The servers: their versions and known defects, their clocks, JetStream and its limits.
enum ServerExam {
    /// Clocks that differ by more than this are told.
    static let clockTolerance = 2.0

    static func gather(_ client: PoolClient, monitorURL: String?, _ facts: inout PoolFacts) async throws {
        let sent = WallClock.now()
        let answers = try await ServerAnswers.gather(client, "$SYS.REQ.ACCOUNT.PING.STATZ")
        // The first answer was there at once: halfway between is a good guess for all but slow networks.
        facts.servers = answers.compactMap { fact($0, asked: sent) }.sorted { $0.name < $1.name }
        let own = client.connection.serverInfo?.serverID
        facts.clockOffset = (facts.servers.first { $0.id == own } ?? facts.servers.first)?.clockOffset ?? 0
        facts.account = try await client.jetStream.accountInfo()
        if let own, let place = monitorPlace(client, monitorURL) {
            let monitor = await ServerMonitor.ask(host: place.host, port: place.port)
            if monitor?.serverID == own { facts.monitor = monitor }
        }
    }

    private static func fact(_ answer: JSON, asked: Double) -> ServerFact? {
        guard let server = answer["server"], let version = server["ver"]?.stringValue else { return nil }
        let time = server["time"]?.stringValue.flatMap(RFC3339.nanoseconds)
        return ServerFact(
            name: server["name"]?.stringValue ?? "",
            id: server["id"]?.stringValue ?? "",
            version: version,
            hasJetStream: server["jetstream"]?.boolValue ?? false,
            clockOffset: time.map { Double($0) / 1e9 - asked }
        )
    }

    /// Where the monitoring port may be: as it was named, else on its usual port beside the server's own.
    private static func monitorPlace(_ client: PoolClient, _ named: String?) -> (host: String, port: String)? {
        let text = named.map { $0.hasPrefix("http://") ? String($0.dropFirst("http://".count)) : $0 }
        do {
            if let text {
                let (host, port) = try ServerURL(text).endpoint
                return (host, port == "4222" ? "8222" : port)
            }
            guard let url = client.connection.serverInfo?.url else { return nil }
            return (try ServerURL(url).endpoint.host, "8222")
        } catch {
            return nil
        }
    }

    // MARK: judging

    static func judge(_ facts: PoolFacts, replicas: Int) -> [Finding] {
        var findings: [Finding] = []
        if facts.servers.isEmpty {
            findings.append(
                Finding(
                    .server,
                    .note,
                    "version_unknown",
                    "what version the server is cannot be told",
                    evidence: "no answer on $SYS.REQ.ACCOUNT.PING.STATZ",
                    advice: "let this account publish there, or look at the server's own log"
                )
            )
        }
        findings += facts.servers.flatMap { judge($0, replicas: replicas) }
        findings += judgeMixture(facts.servers)
        findings += judgeSync(facts, replicas: replicas)
        findings += judgeAccount(facts)
        return findings
    }

    private static func judge(_ server: ServerFact, replicas: Int) -> [Finding] {
        var findings: [Finding] = []
        let name = "nats-server \(server.version)"
        if !server.isAtLeast(2, 9) {
            findings.append(
                Finding(
                    .server,
                    .error,
                    "version_too_old",
                    "\(name) is older than what Maestro is tested with",
                    evidence: "\(server.name) is \(server.version)",
                    advice: "upgrade to 2.9.10 or later; 2.11 or later for replicas"
                )
            )
        }
        if replicas > 1, !server.isAtLeast(2, 11) {
            findings.append(
                Finding(
                    .server,
                    .error,
                    "replicas_unsafe",
                    "\(name) has no working compare-and-set on replicas: jobs can run twice and vanish",
                    evidence: "streams have \(replicas) replicas, \(server.name) is \(server.version)",
                    advice: "upgrade every server to 2.11 or later, or make the streams with STREAM_REPLICAS=1"
                )
            )
        }
        if let offset = server.clockOffset, abs(offset) > clockTolerance {
            findings.append(
                Finding(
                    .server,
                    .warning,
                    "clock_differs",
                    "the server's clock and this machine's differ by \(Printable.duration(abs(offset)))",
                    evidence: "\(server.name) is \(offset > 0 ? "ahead" : "behind")",
                    advice: "let both keep time (chrony, systemd-timesyncd): times in records mislead people otherwise"
                )
            )
        }
        return findings
    }

    private static func judgeMixture(_ servers: [ServerFact]) -> [Finding] {
        let versions = Set(servers.map(\.version)).sorted()
        guard versions.count > 1 else { return [] }
        return [
            Finding(
                .server,
                .warning,
                "mixed_versions",
                "the servers of the cluster are of different versions",
                evidence: servers.map { "\($0.name) \($0.version)" }.joined(separator: ", "),
                advice: "finish the upgrade; the cluster is as good as its oldest server"
            )
        ]
    }

    /// What a power cut takes from a single server.
    private static func judgeSync(_ facts: PoolFacts, replicas: Int) -> [Finding] {
        guard replicas <= 1 else { return [] }
        if let interval = facts.monitor?.syncInterval, interval <= .seconds(10) { return [] }
        let canBeSet = facts.servers.contains { $0.isAtLeast(2, 10) }
        let setting =
            canBeSet
            ? "set jetstream { sync_interval: always } (or 5s) in nats-server.conf, or"
            : "upgrade to 2.10 or later and set jetstream { sync_interval: always }, or"
        return [
            Finding(
                .server,
                .note,
                "sync_interval",
                "a power cut can take the last two minutes of jobs: the server syncs its files no oftener",
                evidence: facts.monitor?.syncInterval.map { "sync_interval is \(Printable.duration($0.inSeconds))" }
                    ?? "one server, one replica, and the usual sync_interval of two minutes",
                advice: "\(setting) replicate: three servers from 2.11 and STREAM_REPLICAS=3. What was submitted with "
                    + "maestroctl comes back with maestroctl reconcile"
            )
        ]
    }

    private static func judgeAccount(_ facts: PoolFacts) -> [Finding] {
        let limits = facts.account["limits"]
        guard let most = limits?["max_storage"]?.intValue, most > 0 else { return [] }
        let used = facts.account["storage"]?.intValue ?? 0
        let share = Double(used) / Double(most)
        let evidence =
            "the account may store \(Printable.bytes(UInt64(most))), and stores \(Printable.bytes(UInt64(max(0, used))))"
        if facts.servers.contains(where: { !$0.isAtLeast(2, 10) }) {
            return [
                Finding(
                    .server,
                    .error,
                    "account_limit_unsafe",
                    "an account limit on this version erases records when it is reached",
                    evidence: evidence,
                    advice:
                        "take max_file out of the account's jetstream limits (max_bytes of the streams bounds them), "
                        + "or upgrade the server"
                )
            ]
        }
        guard share > 0.8 else { return [] }
        return [
            Finding(
                .server,
                share > 0.95 ? .error : .warning,
                "account_full",
                "the account's storage is \(Printable.fixed(share * 100, 0)) % full",
                evidence: evidence,
                advice: "give the account more, or keep less: KEEP_DONE_HOURS, EVENTS_MAX_AGE_HOURS, LOGS_MAX_AGE_HOURS"
            )
        ]
    }

    static func summary(_ facts: PoolFacts, url: String) -> String {
        let versions = Set(facts.servers.map(\.version)).sorted().joined(separator: ", ")
        let count = facts.servers.count > 1 ? "\(facts.servers.count) servers, " : ""
        return "\(count)nats-server \(versions.isEmpty ? "(version unknown)" : versions) at \(Secrets.masked(url))"
    }
}
