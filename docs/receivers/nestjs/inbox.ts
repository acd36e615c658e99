import { Inject, Injectable } from "@nestjs/common";

/** What of a database the inbox needs. TypeORM's `DataSource` on PostgreSQL has it. */
export interface Database {
  transaction<T>(work: (manager: Manager) => Promise<T>): Promise<T>;
}

export interface Manager {
  query(sql: string, values: unknown[]): Promise<unknown>;
}

export const DATABASE = Symbol("the database of the inbox");

/** What a webhook holds, as far as the inbox looks at it; there is more. */
export interface MatrixWebhook {
  type: string;
  data: {
    tenant: string;
    room: { log_id: string };
    events: { sequence: number; event: { event_id: string } }[];
  };
}

/** In a migration. `item` is TEXT because events may hold `\u0000`, which jsonb refuses. */
export const SCHEMA = `
  CREATE TABLE IF NOT EXISTS matrix_events (
    tenant TEXT NOT NULL, event_id TEXT NOT NULL, log_id TEXT NOT NULL, sequence BIGINT NOT NULL,
    room TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (tenant, event_id)
  );
  CREATE TABLE IF NOT EXISTS matrix_notices (
    webhook_id TEXT NOT NULL PRIMARY KEY, type TEXT NOT NULL, data TEXT NOT NULL
  );
`;
const EVENT =
  "INSERT INTO matrix_events VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant, event_id) DO NOTHING";
const NOTICE = "INSERT INTO matrix_notices VALUES ($1, $2, $3) ON CONFLICT (webhook_id) DO NOTHING";

/** Keeps what came, each event once, for others to work on. */
@Injectable()
export class Inbox {
  constructor(@Inject(DATABASE) private readonly database: Database) {}

  /** Keep all of a webhook; when that fails, nothing of it, and it comes again. */
  async keep(webhookId: string, { type, data }: MatrixWebhook): Promise<void> {
    await this.database.transaction(async (manager) => {
      if (type === "room.events") {
        const { tenant, room, events } = data;
        for (const item of events) {
          const { event, sequence } = item;
          const texts = [JSON.stringify(room), JSON.stringify(item)];
          await manager.query(EVENT, [tenant, event.event_id, room.log_id, sequence, ...texts]);
        }
      } else if (type !== "room.ephemeral") {
        // Types that came with a later release are kept as well.
        await manager.query(NOTICE, [webhookId, type, JSON.stringify(data)]);
      }
    });
  }
}
