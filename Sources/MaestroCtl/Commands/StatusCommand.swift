import ArgumentParser
import JobModel
import JobTransport
import NATSClient
import ServiceSupport
import WireJSON

struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Says how the pool is: server, maestro, cards, queue.",
        discussion: "Ends with 69 when no maestro leads.\n\nExample:\n  maestroctl status"
    )

    @OptionGroup var pool: PoolOptions
    @Flag(help: "Print JSON.")
    var json = false

    func run() async throws {
        let client = try await pool.connect()
        var status: MaestroAPI.Status?
        var silence = ""
        do {
            status = try await client.api.status()
        } catch {
            guard error.isSilence else { throw PoolClient.failure(error, "status") }
            silence = error.silence
        }
        let server = client.connection.serverInfo?.url ?? ""
        await client.close()
        if json {
            var object = JSONObject([("server", .string(Secrets.masked(server))), ("maestro", status?.json ?? .null)])
            object["ok"] = .bool(status != nil)
            Console.print(.object(object))
        } else {
            show(status, server: server, silence: silence)
        }
        guard status != nil else { throw quietExit(.unavailable) }
    }

    private func show(_ status: MaestroAPI.Status?, server: String, silence: String) {
        let paint = Paint(.output)
        func line(_ label: String, _ text: String) {
            Console.print(paint(label, .grey) + String(repeating: " ", count: 10 - label.count) + text)
        }
        line("server", Secrets.masked(server))
        guard let status else { return line("maestro", paint("\(silence): jobs wait until one does", .red)) }
        line(
            "maestro",
            paint("leads", .green) + " on \(status.host), process \(status.processID), version \(status.version)"
        )
        line("cards", "\(status.gpusAlive) alive")
        line(
            "jobs",
            "\(status.waiting) waiting, \(status.inFlight) on cards"
                + (status.isQueueFull ? paint(", queue full", .red) : "")
        )
    }
}
