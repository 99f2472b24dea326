// The go-sql-driver: text, prepared statements, interpolated parameters, transactions.
// Its arguments are the address, the user, the password and the file of the certificate authority.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"sync"

	"github.com/go-sql-driver/mysql"
)

func must(err error) {
	if err != nil {
		log.Output(2, err.Error())
		os.Exit(1)
	}
}

func check(holds bool, what string) {
	if !holds {
		log.Output(2, what)
		os.Exit(1)
	}
}

func ids(rows *sql.Rows, err error) (found []int64) {
	must(err)
	defer rows.Close()
	for rows.Next() {
		var id int64
		must(rows.Scan(&id))
		found = append(found, id)
	}
	must(rows.Err())
	return found
}

func walk(db *sql.DB) {
	_, err := db.Exec("DROP TABLE IF EXISTS go_notes")
	must(err)
	_, err = db.Exec("CREATE TABLE go_notes (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(90), n BIGINT, t DATETIME(6))")
	must(err)
	made, err := db.Exec("INSERT INTO go_notes (v, n) VALUES (?, ?), (?, ?)", "ü😀'", 1, nil, 2)
	must(err)
	id, _ := made.LastInsertId()
	count, _ := made.RowsAffected()
	check(id == 1 && count == 2, fmt.Sprint("inserted ", id, count))
	var text sql.NullString
	must(db.QueryRow("SELECT v FROM go_notes WHERE n = ?", 1).Scan(&text))
	check(text.String == "ü😀'", text.String)
	must(db.QueryRow("SELECT v FROM go_notes WHERE n = ?", 2).Scan(&text))
	check(!text.Valid, "NULL")

	// Tables that have moved to shards.
	prepared, err := db.Prepare("SELECT id FROM items WHERE id BETWEEN ? AND ? ORDER BY id DESC")
	must(err)
	for last := int64(2); last < 5; last++ {
		found := ids(prepared.Query(1, last))
		check(int64(len(found)) == last && found[0] == last, fmt.Sprint("scattered ", found))
	}
	must(prepared.Close())
	check(len(ids(db.Query("SELECT id FROM items WHERE id = 7"))) == 1, "one shard")

	both, err := db.Begin()
	must(err)
	changed, err := both.Exec("UPDATE items SET price = price + ? WHERE id IN (?, ?, ?)", 1, 1, 2, 3)
	must(err)
	count, _ = changed.RowsAffected()
	check(count == 3, "changed on both shards")
	must(both.Rollback())
	var price string
	must(db.QueryRow("SELECT price FROM items WHERE id = ?", 2).Scan(&price))
	check(price == "0.50", "rolled back: "+price)

	var together sync.WaitGroup
	for worker := range 8 {
		together.Add(1)
		go func() {
			defer together.Done()
			tx, err := db.Begin()
			must(err)
			_, err = tx.Exec("INSERT INTO go_notes (n) VALUES (?)", 100+worker)
			must(err)
			if worker%2 == 0 {
				must(tx.Commit())
			} else {
				must(tx.Rollback())
			}
		}()
	}
	together.Wait()
	check(len(ids(db.Query("SELECT id FROM go_notes WHERE n >= ?", 100))) == 4, "what was committed")

	_, err = db.Exec("SELECT * FROM nothing_here WHERE id = ?", 1)
	var refused *mysql.MySQLError
	check(errors.As(err, &refused) && refused.Number == 1146, fmt.Sprint("error ", err))
	_, err = db.Exec("DROP TABLE go_notes")
	must(err)
}

func main() {
	pem, err := os.ReadFile(os.Args[4])
	must(err)
	roots := x509.NewCertPool()
	check(roots.AppendCertsFromPEM(pem), "certificate")
	must(mysql.RegisterTLSConfig("own", &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}))
	for _, interpolate := range []bool{false, true} {
		config := mysql.NewConfig()
		config.Net, config.Addr, config.User, config.Passwd = "tcp", os.Args[1], os.Args[2], os.Args[3]
		config.DBName, config.TLSConfig, config.InterpolateParams = "shop", "own", interpolate
		db, err := sql.Open("mysql", config.FormatDSN())
		must(err)
		db.SetMaxOpenConns(4)
		must(db.Ping())
		walk(db)
		must(db.Close())
	}
	fmt.Println("done")
}
