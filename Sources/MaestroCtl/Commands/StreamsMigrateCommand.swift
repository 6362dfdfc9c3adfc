import ArgumentParser
import JobModel
import JobTransport
import ServiceSupport
import WireJSON

struct StreamsMigrateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "migrate",
        abstract: "Moves streams of an older layout over, and keeps every pending job.",
        discussion: """
            In the older layout the work queue also holds the dispatched attempts (gpu.task.run.*), and the stream of \
            events the jobs' states (gpu.task.state.*). Attempts go back to the queue, states that are records become \
            records, and the streams get their subjects of now; what else they hold stays.

            Stop the older scheduler and its workers first. It may be killed and run again at any time; when there is \
            nothing to do it says so. Then start maestro, which makes the streams that are missing.

            Ends with 1 when a job had not ended and its task is nowhere, with 75 while somebody still works on the \
            streams, with 78 when a stream cannot be changed.

            Examples:
              maestroctl streams migrate --dry-run
              maestroctl streams migrate
            """
    )

    @OptionGroup var pool: PoolOptions
    @Flag(help: "Say what would be done, and change nothing.")
    var dryRun = false
    @Flag(help: "Take the card out of dispatched tasks: for an older scheduler that wrote it into them.")
    var unpin = false
    @Flag(help: "Print JSON.")
    var json = false

    func run() async throws {
        let client = try await pool.connect()
        do {
            try await migrate(client)
        } catch let code as ArgumentParser.ExitCode {
            await client.close()
            throw code
        } catch {
            await client.close()
            throw PoolClient.failure(error, "streams migrate")
        }
        await client.close()
    }

    private func migrate(_ client: PoolClient) async throws {
        let migrator = Migrator(client: client, unpin: unpin)
        let facts = try await migrator.look()
        let migration = StreamMigration(facts, names: client.names)
        if !json {
            for step in migration.steps { Console.print("\(dryRun ? "would: " : "")\(step)") }
        }
        try await refuse(migration, client)
        if dryRun || migration.steps.isEmpty {
            if json { Console.print(Self.json(migration, nil)) }
            if !json, migration.steps.isEmpty {
                Console.print("The streams are of this layout: there is nothing to do.")
            }
            return
        }
        let summary = try await migrator.carryOut(migration, facts)
        if json {
            Console.print(Self.json(migration, summary))
        } else {
            Console.print(
                "Kept: \(summary.records) records, \(summary.resubmitted) dispatched attempts as submissions"
                    + (summary.refreshed > 0 ? ", \(summary.refreshed) old submissions" : "")
                    + (summary.ended > 0 ? "; \(summary.ended) attempts had ended" : "") + ". Now start maestro."
            )
        }
        guard !summary.lost.isEmpty else { return }
        let ids = summary.lost.prefix(20).map(\.text).joined(separator: " ")
        Console.say(
            "maestroctl: \(summary.lost.count) jobs had not ended, and no stream holds what they were to run; submit them "
                + "again: \(ids)\(summary.lost.count > 20 ? " …" : "")"
        )
        throw quietExit(.failure)
    }

    private func refuse(_ migration: StreamMigration, _ client: PoolClient) async throws {
        guard !migration.steps.isEmpty else { return }
        let isInUse = try await isLed(client)
        for obstacle in migration.obstacles { Console.say("maestroctl: \(obstacle)") }
        if isInUse || migration.obstacles.contains(where: { $0.contains("stop the older") }) {
            throw quietExit(.deadline)
        }
        if !migration.obstacles.isEmpty { throw quietExit(.configuration) }
    }

    private func isLed(_ client: PoolClient) async throws -> Bool {
        // Where nobody ever led there is no stream of leases.
        guard try await StreamsCommand.info(client.names.controlStream, client) != nil else { return false }
        var api = client.api
        api.deadline = .seconds(2)
        do {
            let leader = try await api.status()
            Console.say("maestroctl: a maestro leads (host \(leader.host), pid \(leader.processID)): stop it first")
            return true
        } catch .noMaestro, .unanswered {
            // Whoever watches the whole bus hears the question too, and answers nothing.
            return false
        } catch {
            throw PoolClient.failure(error, "who leads")
        }
    }

    private static func json(_ migration: StreamMigration, _ summary: Migrator.Summary?) -> JSON {
        let steps = migration.steps.map { step -> JSON in
            ["step": .string(step.code), "what": .string(step.description)]
        }
        var object: JSONObject = ["steps": .array(steps)]
        if let summary {
            object["records"] = .int(summary.records)
            object["resubmitted"] = .int(summary.resubmitted)
            object["refreshed"] = .int(summary.refreshed)
            object["ended"] = .int(summary.ended)
            object["lost"] = .array(summary.lost.map { .string($0.text) })
        }
        return .object(object)
    }
}
