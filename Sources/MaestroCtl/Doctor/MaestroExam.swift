import JobModel
import JobTransport
import NATSClient
import ServiceSupport
import WireJSON

/// Who leads, who stands by, and how much there is to do.
enum MaestroExam {
    struct Facts: Sendable {
        /// Connections of maestros at all servers; nil when that cannot be told.
        var connections: Int?
        /// What the lease says; nil when there is none that can be read.
        var lease: LeaderLease?
        /// How long ago it was renewed, in seconds.
        var leaseAge = 0.0
        /// Why nobody answered as the leader.
        var silence = ""
    }

    static func gather(_ client: PoolClient, _ pool: inout PoolFacts, now: Double) async throws -> Facts {
        var facts = Facts()
        var api = client.api
        api.deadline = .seconds(2)
        do throws(MaestroAPIError) {
            pool.leader = try await api.status()
        } catch .noMaestro {
            facts.silence = "nobody listens for requests"
        } catch {
            facts.silence = error.description
        }
        let answers = try await ServerAnswers.gather(client, "$SYS.REQ.ACCOUNT.PING.CONNZ")
        if !answers.isEmpty {
            let names = answers.flatMap { $0["data"]?["connections"]?.arrayValue ?? [] }.map { $0["name"]?.stringValue }
            facts.connections = names.count { $0 == "maestro" }
        }
        do {
            let message = try await client.jetStream.lastMessage(
                stream: client.names.controlStream,
                subject: client.names.leader
            )
            if let message {
                facts.lease = try LeaderLease(parsing: message.payload)
                facts.leaseAge = pool.age(message.timestamp, now: now)
            }
        } catch {
            // Told by the examination of the control records, which reads it too.
            facts.lease = nil
        }
        return facts
    }

    static func judge(_ facts: Facts, _ pool: PoolFacts) -> [Finding] {
        guard let leader = pool.leader else { return [nobodyLeads(facts)] }
        var findings: [Finding] = []
        if let lease = facts.lease, lease.holder.text != leader.incarnation {
            findings.append(
                Finding(
                    .maestro,
                    .warning,
                    "leader_differs",
                    "who answers is not who holds the lease",
                    evidence:
                        "\(leader.incarnation) on \(leader.host) answers, \(lease.holder) on \(lease.host) holds it",
                    advice: "look again: in a take-over this lasts a moment. If it stays, restart the one that answers"
                )
            )
        }
        if leader.version != ProgramVersion.text {
            findings.append(
                Finding(
                    .maestro,
                    .note,
                    "version_differs",
                    "maestro is version \(leader.version), this program \(ProgramVersion.text)",
                    evidence: "on \(leader.host)",
                    advice: "mixed versions work together; finish the upgrade when it suits"
                )
            )
        }
        findings += judgeWork(leader)
        if facts.connections == 1 {
            findings.append(
                Finding(
                    .maestro,
                    .note,
                    "no_standby",
                    "no second maestro stands by",
                    evidence: "one connection is a maestro's",
                    advice: "start another on a second host: it takes over within LEASE_SEC when this one dies"
                )
            )
        }
        return findings
    }

    private static func judgeWork(_ leader: MaestroAPI.Status) -> [Finding] {
        if leader.isQueueFull {
            return [
                Finding(
                    .maestro,
                    .warning,
                    "queue_full",
                    "the queue is full: no more jobs are admitted",
                    evidence: "\(leader.waiting) jobs wait",
                    advice: "wait, cancel some, add cards, or raise MAX_QUEUE; see also maestroctl streams"
                )
            ]
        }
        guard leader.gpusAlive == 0, leader.waiting + leader.inFlight > 0 else { return [] }
        return [
            Finding(
                .maestro,
                .warning,
                "no_cards",
                "jobs wait and no card is there",
                evidence: "\(leader.waiting) waiting, \(leader.inFlight) on cards",
                advice: "start workers: systemctl start gpu-worker@0, or maestroctl up"
            )
        ]
    }

    private static func nobodyLeads(_ facts: Facts) -> Finding {
        var seen =
            facts.lease.map { lease in
                lease.isReleased
                    ? "the last one, on \(lease.host), ended in order"
                    : "the lease of process \(lease.processID) on \(lease.host) was renewed \(Printable.duration(facts.leaseAge)) ago"
            } ?? "there is no lease that can be read"
        if let connections = facts.connections, connections > 0 {
            seen += "; \(Printable.count(connections, "maestro")) connected"
        }
        if !facts.silence.isEmpty { seen += "; \(facts.silence)" }
        return Finding(
            .maestro,
            .error,
            "no_leader",
            "no maestro leads: jobs wait, whatever is free",
            evidence: seen,
            advice: "start one (systemctl start maestro); if one runs, its log says what keeps it from leading"
        )
    }

    static func summary(_ pool: PoolFacts, _ facts: Facts) -> String {
        guard let leader = pool.leader else { return "none leads" }
        let others = max(0, (facts.connections ?? 1) - 1)
        return "\(leader.host) leads, \(others) standing by, \(leader.waiting) jobs wait, \(leader.inFlight) on cards"
    }
}
